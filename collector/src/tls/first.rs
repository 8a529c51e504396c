//! The first start without any certificates: the collector makes an authority for itself.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use axum::http::uri::Authority;

use super::TlsError;
use crate::{
    ca,
    config::{Config, Tls},
};

/// The files of `[tls]`, and the authority's key if hosts can enrol. Where `[tls]` is as by default and nothing is there,
/// an authority of our own takes its place; it is made if it is missing.
pub(crate) fn files_of(config: &Config) -> Result<(Tls, Option<PathBuf>), TlsError> {
    let key = config.enrol.authority_key.clone();
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let tls = &config.tls;
    if *tls != Tls::default()
        || [&tls.ca, &tls.certificate, &tls.private_key].into_iter().any(|path| there(path))
    {
        return Ok((tls.clone(), key));
    }
    let directory = config.own_tls_directory();
    if !there(&directory) {
        let names = names(config);
        ca::init(&directory, &names)?;
        tracing::warn!(
            directory = %directory.display(),
            names = names.join(", "),
            pin = ca::pin(&directory)?,
            "made an authority and a certificate for this collector; browsers must be told to trust ca.pem, and with \
             [tls] in the settings a certificate of yours takes its place"
        );
    }
    Ok((Tls::in_directory(&directory), Some(key.unwrap_or_else(|| directory.join("ca-key.pem")))))
}

/// By which others may call this machine.
fn names(config: &Config) -> Vec<String> {
    let mut names = Vec::new();
    let url = config.web.authority().and_then(|authority| authority.parse::<Authority>().ok());
    names.extend(url.map(|authority| authority.host().trim_matches(['[', ']']).to_owned()));
    names.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
    let address = config.listen.ip();
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let usable = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
    };
    names.retain(usable);
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_gets_an_authority_once_and_named_files_are_never_made() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { data_directory: directory.path().join("data"), ..Config::default() };
        config.web.url = Some("https://trail.example:7443".into());
        let (tls, key) = files_of(&config).unwrap();
        let made = std::fs::read(&tls.ca).unwrap();
        assert_eq!(key.unwrap(), config.own_tls_directory().join("ca-key.pem"));
        assert_eq!(files_of(&config).unwrap().0, tls);
        assert_eq!(std::fs::read(&tls.ca).unwrap(), made);
        let names = super::super::Files::read(&tls).unwrap().names();
        assert!(names.contains(&"trail.example".into()) && names.contains(&"::1".into()), "{names:?}");

        config.tls = Tls::in_directory(&directory.path().join("typo"));
        assert_eq!(files_of(&config).unwrap(), (config.tls.clone(), None));
        assert!(!directory.path().join("typo").exists());
    }
}
