//! The collector's settings: one TOML file, every key documented in `collector.toml` beside this file, all defaulted.
//!
//! In: a path, or text. Out: a [`Config`] whose values are within their bounds, or an error that names file, line, key
//! and what would be right. Touches no file that the settings name but the policy,
//! when it is asked for it.

mod access;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_evidence::tlog::policy::Policy;
use buildtrail_settings::{Invalid, SettingsError, Span};
use serde::Deserialize;

pub(crate) use self::access::is_trustworthy;
pub use self::access::{Access, Group, Oidc, Rights, Web};
pub use crate::access::Role;
use crate::tree::TreeError;

/// The documented default settings file.
pub const DOCUMENTED: &str = include_str!("collector.toml");

const DAY: u64 = 86_400;

/// All settings of the collector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Directory for the log and its index; absolute.
    pub data_directory: PathBuf,
    /// `[tls]`
    pub tls: Tls,
    /// `[limits]`
    pub limits: Limits,
    /// `[log]`
    pub log: Log,
    /// `[tree]`
    pub tree: Tree,
    /// `[enrol]`
    pub enrol: Enrol,
    /// `[retention]`
    pub retention: Retention,
    /// `[hosts]`
    pub hosts: Hosts,
    /// `[[identity_issuers]]`
    pub identity_issuers: Vec<IdentityIssuer>,
    /// `[web]`
    pub web: Web,
    /// `[access]`
    pub access: Access,
}

/// `[[identity_issuers]]`: a CI provider whose tokens prove jobs' identities.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityIssuer {
    /// As tokens name it.
    pub issuer: String,
    /// Where its keys are; https, or http on this machine.
    pub keys_url: String,
    /// Whom tokens must be for.
    pub audience: String,
    /// Authorities of the server with the keys, PEM.
    #[serde(default = "system_authorities")]
    pub ca: PathBuf,
}

fn system_authorities() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The authority of hosts and readers.
    pub ca: PathBuf,
    /// The collector's certificate, intermediates after it.
    pub certificate: PathBuf,
    /// The collector's private key, PKCS#8.
    pub private_key: PathBuf,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest batch, in bytes; 64 KiB to 15 MiB.
    pub max_batch_bytes: usize,
    /// Most connections at a time; 1 to 65536.
    pub max_connections: usize,
    /// Most live tails at a time; 0 to 4096.
    pub max_tails: usize,
    /// Longest time for answering one question, in seconds; 1 to 3600.
    pub query_seconds: u64,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Bytes after which a log file is closed; 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Free space below which batches are refused, in bytes; 0 to 1 TiB.
    pub reserve_bytes: u64,
}

/// `[retention]`: when events go. Hashes, headers and signatures stay for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days after which events are removed; 0: never.
    pub max_age_days: u32,
    /// Bytes of the log above which the oldest events are removed; 0: none.
    pub max_bytes: u64,
}

impl Retention {
    /// The maximal age.
    #[must_use]
    pub(crate) fn max_age(self) -> Duration {
        Duration::from_hours(24) * self.max_age_days
    }
}

/// `[hosts]`: what is expected of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hosts {
    /// Silence after which a host has gone dark, in seconds; 1 to 86400.
    pub dark_after_seconds: u64,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { dark_after_seconds: 180 }
    }
}

/// `[tree]`: the signed Merkle tree over the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tree {
    /// Name of the log in its checkpoints; empty: made from its key.
    pub origin: String,
    /// Longest time between a record and a checkpoint over it, in seconds; 1 to 3600.
    pub checkpoint_seconds: u64,
    /// C2SP tlog-policy file: witnesses, and who of them must cosign.
    pub policy: Option<PathBuf>,
    /// The authority of the witnesses' certificates (PEM); absent: that of `[tls]`.
    pub witness_ca: Option<PathBuf>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { origin: String::new(), checkpoint_seconds: 2, policy: None, witness_ca: None }
    }
}

/// `[enrol]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrol {
    /// The authority's private key; absent: hosts cannot enrol or renew.
    pub authority_key: Option<PathBuf>,
    /// How long hosts' certificates last; 3 seconds to 366 days.
    pub certificate_lifetime: Span,
    /// How long after its end a certificate may still be renewed; up to 3650 days.
    pub grace: Span,
}

impl Default for Enrol {
    fn default() -> Self {
        Self {
            authority_key: None,
            certificate_lifetime: Span::from_seconds(86_400),
            grace: Span::from_seconds(30 * 86_400),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7443)),
            data_directory: "/var/lib/buildtrail-collector".into(),
            tls: Tls::default(),
            limits: Limits::default(),
            log: Log::default(),
            tree: Tree::default(),
            enrol: Enrol::default(),
            retention: Retention::default(),
            hosts: Hosts::default(),
            identity_issuers: Vec::new(),
            web: Web::default(),
            access: Access::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::in_directory(Path::new("/etc/buildtrail-collector"))
    }
}

impl Tls {
    /// The files that `buildtrail-collector ca init --dir DIRECTORY` makes.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            certificate: directory.join("cert.pem"),
            private_key: directory.join("key.pem"),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_batch_bytes: 8 << 20, max_connections: 1024, max_tails: 64, query_seconds: 30 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, reserve_bytes: 64 << 20 }
    }
}

impl Config {
    /// Reads a settings file; without one, the defaults.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or a key or value is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, SettingsError> {
        path.map_or_else(|| Ok(Self::default()), |path| buildtrail_settings::load_checked(path, Self::check))
    }

    /// Directory of the log.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        self.data_directory.join("log")
    }

    /// File of what is known about hosts and join tokens.
    #[must_use]
    pub fn control_file(&self) -> PathBuf {
        self.data_directory.join("control.sqlite")
    }

    /// Directory of the authority that the collector makes for itself when it has no certificates.
    #[must_use]
    pub fn own_tls_directory(&self) -> PathBuf {
        self.data_directory.join("tls")
    }

    /// File of the index.
    #[must_use]
    pub fn index_file(&self) -> PathBuf {
        self.data_directory.join("index.sqlite")
    }

    /// Directory of the tree over the log.
    #[must_use]
    pub fn tree_directory(&self) -> PathBuf {
        self.data_directory.join("tlog")
    }

    /// File of the key that signs the tree.
    #[must_use]
    pub fn log_key_file(&self) -> PathBuf {
        self.data_directory.join("log-key.pem")
    }

    /// The witness policy, read from its file; `None`: there is none.
    pub(crate) fn policy(&self) -> Result<Option<Policy>, TreeError> {
        let Some(path) = &self.tree.policy else { return Ok(None) };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| TreeError::Io { action: "read", path: path.clone(), source })?;
        let policy = Policy::parse(&text);
        policy.map(Some).map_err(|source| TreeError::Policy { path: path.clone(), source })
    }

    fn check(&self) -> Result<(), Invalid> {
        let ensure = |good: bool, key: &str, problem: &str| {
            if good { Ok(()) } else { Err(Invalid::new(key, problem)) }
        };
        let limits = &self.limits;
        ensure(self.data_directory.is_absolute(), "data_directory", "it must be an absolute path")?;
        ensure(
            (64 << 10..=15 << 20).contains(&limits.max_batch_bytes),
            "limits.max_batch_bytes",
            "it must be from 65536 to 15728640 (64 KiB to 15 MiB)",
        )?;
        ensure(
            (1..=65_536).contains(&limits.max_connections),
            "limits.max_connections",
            "it must be from 1 to 65536",
        )?;
        ensure(limits.max_tails <= 4096, "limits.max_tails", "it must be from 0 to 4096")?;
        ensure(
            (1..=3600).contains(&limits.query_seconds),
            "limits.query_seconds",
            "it must be from 1 to 3600",
        )?;
        ensure(
            (3..=366 * DAY).contains(&self.enrol.certificate_lifetime.seconds()),
            "enrol.certificate_lifetime",
            "it must be from 3s to 366d",
        )?;
        ensure(self.enrol.grace.seconds() <= 3650 * DAY, "enrol.grace", "it must be at most 3650d")?;
        ensure(
            (1 << 20..=1 << 30).contains(&self.log.segment_bytes),
            "log.segment_bytes",
            "it must be from 1048576 to 1073741824 (1 MiB to 1 GiB)",
        )?;
        ensure(
            (1..=3600).contains(&self.tree.checkpoint_seconds),
            "tree.checkpoint_seconds",
            "it must be from 1 to 3600",
        )?;
        ensure(
            self.log.reserve_bytes <= 1 << 40,
            "log.reserve_bytes",
            "it must be from 0 to 1099511627776 (1 TiB)",
        )?;
        for (index, issuer) in self.identity_issuers.iter().enumerate() {
            let key = format!("identity_issuers.{index}");
            ensure(!issuer.issuer.is_empty(), &format!("{key}.issuer"), "it must not be empty")?;
            ensure(!issuer.audience.is_empty(), &format!("{key}.audience"), "it must not be empty")?;
            ensure(
                crate::oidc_identity::is_keys_url(&issuer.keys_url),
                &format!("{key}.keys_url"),
                "it must be an https URL; http only on this machine (127.0.0.1 or [::1])",
            )?;
        }
        ensure(
            (1..=86_400).contains(&self.hosts.dark_after_seconds),
            "hosts.dark_after_seconds",
            "it must be from 1 to 86400",
        )?;
        self.web.check()?;
        self.access.check(&self.web)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, SettingsError> {
        buildtrail_settings::parse_checked(text, Path::new("collector.toml"), Config::check)
    }

    #[test]
    fn the_documented_file_holds_the_defaults_and_every_key() {
        assert_eq!(parse(DOCUMENTED).unwrap(), Config::default());
        let keys = DOCUMENTED.lines().filter(|line| line.contains(" = ")).count();
        assert_eq!(keys, 46, "a key was added without documenting it, or the other way round");
    }

    #[test]
    fn wrong_keys_and_values_name_line_and_nearest_key() {
        let error = parse("[limits]\nmax_conections = 3\n").unwrap_err().to_string();
        assert!(error.contains("collector.toml:2") && error.contains("max_connections"), "{error}");
        for (text, key) in [
            ("data_directory = 'x'", "data_directory"),
            ("[limits]\nmax_batch_bytes = 1", "max_batch_bytes"),
            ("[limits]\nmax_connections = 0", "max_connections"),
            ("[limits]\nmax_tails = 5000", "max_tails"),
            ("[limits]\nquery_seconds = 0", "query_seconds"),
            ("[log]\nsegment_bytes = 5", "segment_bytes"),
            ("[enrol]\ncertificate_lifetime = '2s'", "certificate_lifetime"),
            ("[enrol]\ngrace = '30 days'", "grace"),
            ("[log]\nreserve_bytes = 2000000000000", "reserve_bytes"),
            ("[tree]\ncheckpoint_seconds = 0", "checkpoint_seconds"),
            ("[hosts]\ndark_after_seconds = 0", "dark_after_seconds"),
            ("[web]\nurl = 'http://trail.example'", "web.url"),
            ("[access]\nsession_idle = '1s'", "session_idle"),
            ("[access]\nrequests_per_minute = 1", "requests_per_minute"),
            ("[access.readers.ann]\nrole = 'analyst'", "access.readers.ann"),
            ("[access.readers.ann]\nrole = 'king'\neverything = true", "king"),
            ("[access.readers.ann]\nrole = 'viewer'\neverything = true\nrepositories = ['a/b']", "either"),
            ("[access.oidc]\nissuer = 'https://id'\nclient_id = 'x'", "web.url"),
            (
                "[web]\nurl = 'https://t'\n[access.oidc]\nissuer = 'http://id.example'\nclient_id = 'x'",
                "access.oidc.issuer",
            ),
            ("listen = 'localhost'", "listen"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
