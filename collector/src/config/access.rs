//! `[web]` and `[access]`: who may come, how they prove who they are, and what they get.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use axum::http::Uri;
use buildtrail_query::{RepositoryGlob, Scope};
use buildtrail_settings::{Invalid, Span};
use serde::Deserialize;

use crate::access::Role;

const DAY: u64 = 86_400;

/// `[web]`: browsers, and programs that show a token in place of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Whether they are let in.
    pub enabled: bool,
    /// The address that people type: `https://trail.example.com:7443`.
    pub url: Option<String>,
}

impl Default for Web {
    fn default() -> Self {
        Self { enabled: true, url: None }
    }
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Idle time after which a browser must sign in again; a minute to a day.
    pub session_idle: Span,
    /// Time after which it must in any case; a minute to 30 days.
    pub session_lifetime: Span,
    /// Longest life of an API token; up to 366 days.
    pub token_lifetime: Span,
    /// Requests of one person in a minute; 10 to 1000000.
    pub requests_per_minute: u32,
    /// What readers' certificates allow, by name. Empty: each reads everything, as an auditor.
    pub readers: BTreeMap<String, Rights>,
    /// Single sign-on.
    pub oidc: Option<Oidc>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            session_idle: Span::from_seconds(30 * 60),
            session_lifetime: Span::from_seconds(12 * 3600),
            token_lifetime: Span::from_seconds(90 * DAY),
            requests_per_minute: 1200,
            readers: BTreeMap::new(),
            oidc: None,
        }
    }
}

/// A role, and where it counts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// What may be done.
    pub role: Role,
    /// In these repositories: `acme/*`.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Everywhere, and beyond repositories.
    #[serde(default)]
    pub everything: bool,
}

impl Rights {
    /// As a scope; what was not checked gives nothing.
    pub(crate) fn scope(&self) -> Scope {
        if self.everything {
            return Scope::Everything;
        }
        Scope::Repositories(self.repositories.iter().filter_map(|text| text.parse().ok()).collect())
    }

    fn check(&self, key: &str) -> Result<(), Invalid> {
        if self.everything != self.repositories.is_empty() {
            let problem = "it must have either repositories = [\"acme/*\"] or everything = true";
            return Err(Invalid::new(key, problem));
        }
        for text in &self.repositories {
            text.parse::<RepositoryGlob>().map_err(|error| Invalid::new(key, error.to_string()))?;
        }
        Ok(())
    }
}

/// `[access.oidc]`: single sign-on with `OpenID` Connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider, as its tokens name it.
    pub issuer: String,
    /// What the provider calls this collector.
    pub client_id: String,
    /// File with the secret that the provider gave; absent: a public client.
    pub client_secret_file: Option<PathBuf>,
    /// Authorities of the provider's certificate (PEM); absent: those of the system.
    pub ca: Option<PathBuf>,
    /// What to ask for besides `openid`, `profile` and `email`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Which claim names a person.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// Which claim lists a person's groups.
    #[serde(default = "group_claim")]
    pub group_claim: String,
    /// By how much the provider's clock may differ; up to ten minutes.
    #[serde(default = "clock_skew")]
    pub clock_skew: Span,
    /// What members of groups get.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// What the members of a group get. A table cannot be both flat and strict, so the rights' keys are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// As the provider names it.
    pub group: String,
    /// What may be done.
    pub role: Role,
    /// In these repositories.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Everywhere.
    #[serde(default)]
    pub everything: bool,
}

impl Group {
    pub(crate) fn rights(&self) -> Rights {
        Rights { role: self.role, repositories: self.repositories.clone(), everything: self.everything }
    }
}

fn name_claim() -> String {
    "preferred_username".into()
}

fn group_claim() -> String {
    "groups".into()
}

fn clock_skew() -> Span {
    Span::from_seconds(60)
}

impl Web {
    /// The host in the address, and its port if it is said.
    pub(crate) fn authority(&self) -> Option<&str> {
        let rest = self.url.as_deref()?.strip_prefix("https://")?;
        Some(rest.trim_end_matches('/'))
    }

    pub(super) fn check(&self) -> Result<(), Invalid> {
        let good = |authority: &str| {
            !authority.is_empty()
                && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        };
        if self.url.is_some() && !self.authority().is_some_and(good) {
            return Err(Invalid::new("web.url", "it must be https://NAME or https://NAME:PORT"));
        }
        Ok(())
    }
}

impl Access {
    pub(super) fn check(&self, web: &Web) -> Result<(), Invalid> {
        let span = |span: Span, max: u64, key: &str, problem: &str| {
            if (60..=max).contains(&span.seconds()) { Ok(()) } else { Err(Invalid::new(key, problem)) }
        };
        span(self.session_idle, DAY, "access.session_idle", "it must be from 1m to 1d")?;
        span(self.session_lifetime, 30 * DAY, "access.session_lifetime", "it must be from 1m to 30d")?;
        span(self.token_lifetime, 366 * DAY, "access.token_lifetime", "it must be from 1m to 366d")?;
        if !(10..=1_000_000).contains(&self.requests_per_minute) {
            return Err(Invalid::new("access.requests_per_minute", "it must be from 10 to 1000000"));
        }
        for (name, rights) in &self.readers {
            rights.check(&format!("access.readers.{name}"))?;
        }
        let Some(oidc) = &self.oidc else { return Ok(()) };
        if web.url.is_none() {
            return Err(Invalid::new(
                "web.url",
                "single sign-on needs it: the provider sends browsers back there",
            ));
        }
        if !is_trustworthy(&oidc.issuer) {
            let problem = "it must be an https:// address; http:// is for providers on the loopback address";
            return Err(Invalid::new("access.oidc.issuer", problem));
        }
        if oidc.clock_skew.seconds() > 600 {
            return Err(Invalid::new("access.oidc.clock_skew", "it must be at most 10m"));
        }
        oidc.groups.iter().try_for_each(|group| group.rights().check("access.oidc.groups"))
    }
}

/// Whether what is said there stays between the two: HTTPS, or this very machine.
pub(crate) fn is_trustworthy(url: &str) -> bool {
    if let Some(rest) = url.strip_prefix("https://") {
        return !rest.is_empty();
    }
    let Ok(url) = url.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    url.scheme_str() == Some("http") && host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in ["https://id.example.com", "http://127.0.0.1:9400", "http://[::1]:9400/x"] {
            assert!(is_trustworthy(good), "{good}");
        }
        for bad in [
            "http://id.example.com",
            "http://localhost",
            "http://127.0.0.1.evil.example",
            "https://",
            "",
            "ftp://x",
        ] {
            assert!(!is_trustworthy(bad), "{bad}");
        }
    }
}
