//! Who this host is: its certificate, the key that belongs to it, and the authority it trusts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use buildtrail_evidence::{
    id::HostId,
    key::{HostKey, KeyError},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    parse_x509_certificate,
    pem::{Pem, parse_x509_pem},
};

use crate::config;

/// What a host's certificate calls it: `buildtrail://host/<id>`.
const HOST_URI: &str = "buildtrail://host/";
/// Largest certificate or key file, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// The certificates or the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is missing or unreadable.
    #[error("collector.{setting}: cannot read {}: {source}", path.display())]
    Read {
        /// Key in `[collector]`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("collector.{setting}: {}: {problem}", path.display())]
    Content {
        /// Key in `[collector]`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
}

/// What the host shows and what it trusts. `Debug` never shows the key.
pub struct Credentials {
    host_id: HostId,
    ca: String,
    certificate: String,
    key: String,
    path: PathBuf,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("host_id", &self.host_id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads and checks the three files named in the settings.
    ///
    /// # Errors
    /// A file is missing or not what it should be; the certificate names no host, is expired or not valid yet, or
    /// belongs to another key.
    pub fn load(settings: &config::Collector) -> Result<Self, CredentialsError> {
        let ca = read("ca", &settings.ca)?;
        let certificate = read("certificate", &settings.certificate)?;
        let key = read("private_key", &settings.private_key)?;

        let wrong = |setting, path: &Path| {
            let path = path.to_owned();
            move |problem: String| CredentialsError::Content { setting, path, problem }
        };
        first_certificate(&ca).map_err(wrong("ca", &settings.ca))?;
        let host_key = HostKey::from_pkcs8_pem(&key)
            .map_err(|error| error.to_string())
            .map_err(wrong("private_key", &settings.private_key))?;
        let host_id =
            examine(&certificate, &host_key).map_err(wrong("certificate", &settings.certificate))?;
        Ok(Self { host_id, ca, certificate, key, path: settings.private_key.clone() })
    }

    /// The id in the certificate.
    #[must_use]
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    /// The key of the certificate, for signing batches.
    ///
    /// # Errors
    /// None that [`Credentials::load`] would not have found.
    pub fn host_key(&self) -> Result<HostKey, CredentialsError> {
        HostKey::from_pkcs8_pem(&self.key).map_err(|error: KeyError| CredentialsError::Content {
            setting: "private_key",
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key
    }
}

fn read(setting: &'static str, path: &Path) -> Result<String, CredentialsError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(CredentialsError::Read { setting, path: path.to_owned(), source }),
    }
}

fn first_certificate(text: &str) -> Result<Pem, String> {
    let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| "this is not a PEM file".to_owned())?;
    if pem.label != "CERTIFICATE" {
        return Err("this is a PEM file, but not of a certificate".to_owned());
    }
    parse_x509_certificate(&pem.contents).map_err(|_| "the certificate is damaged".to_owned())?;
    Ok(pem)
}

fn examine(text: &str, key: &HostKey) -> Result<HostId, String> {
    let pem = first_certificate(text)?;
    let (_, certificate) =
        parse_x509_certificate(&pem.contents).map_err(|_| "the certificate is damaged".to_owned())?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public().as_bytes() {
        return Err("the certificate belongs to another key than collector.private_key".to_owned());
    }
    check_dates(&certificate)?;
    host_id(&certificate)
}

fn check_dates(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now > validity.not_after.timestamp() {
        return Err(format!("the certificate expired on {}; get a new one", validity.not_after));
    }
    if now < validity.not_before.timestamp() {
        return Err(format!(
            "the certificate is not valid before {}; is this host's clock right?",
            validity.not_before
        ));
    }
    Ok(())
}

fn host_id(certificate: &X509Certificate<'_>) -> Result<HostId, String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut ids = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(HOST_URI),
        _ => None,
    });
    let Some(id) = ids.next() else {
        return Err(format!(
            "the certificate names no host: it needs the subject alternative name URI:{HOST_URI}ID"
        ));
    };
    if ids.next().is_some() {
        return Err("the certificate names several hosts".to_owned());
    }
    HostId::parse(id).map_err(|error| error.to_string())
}
