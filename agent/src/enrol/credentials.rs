//! Who this host is: its certificate, the key that belongs to it, and the authorities it trusts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use buildtrail_evidence::{
    id::HostId,
    key::{HostKey, HostPublicKey, KeyError},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

use super::{Identity, IdentityStore, StoreError};
use crate::{
    config::{Collector, Config},
    host,
    link::{LinkError, Trust},
};

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
    /// A file of the settings is not what it should be.
    #[error("collector.{setting}: {}: {problem}", path.display())]
    Content {
        /// Key in `[collector]`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// What enrolment brought cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What enrolment brought cannot be used.
    #[error("{}: {problem}; enrol again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The host never enrolled.
    #[error(
        "this host has no identity ({} does not exist): make a token with `buildtrail enrol create` and run \
         `buildtrail-agent enrol`, or name certificates in [collector]",
        .0.display()
    )]
    None(PathBuf),
    /// The identity was made on another machine.
    #[error(
        "the identity in {} was made on another machine, as when a disk image with an identity in it is cloned: make a \
         token with `buildtrail enrol create` and run `buildtrail-agent enrol --new-identity`",
        .0.display()
    )]
    OtherMachine(PathBuf),
}

/// What the host shows and what it trusts. `Debug` never shows the key.
pub struct Credentials {
    host_id: HostId,
    key: String,
    public: HostPublicKey,
    chain: Vec<CertificateDer<'static>>,
    authorities: Vec<CertificateDer<'static>>,
    begins: SystemTime,
    ends: SystemTime,
    /// Where a renewed certificate is kept; `None` for certificates that were issued by hand.
    kept: Option<Identity>,
    path: PathBuf,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("host_id", &self.host_id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads what enrolment brought, or the three files of the settings. An expired certificate is no error: the
    /// collector may renew it.
    ///
    /// # Errors
    /// There is no identity, or it was made on another machine; a file is missing or not what it should be; the
    /// certificate names no host or belongs to another key.
    pub fn load(config: &Config) -> Result<Self, CredentialsError> {
        let Collector { ca, certificate, private_key, .. } = &config.collector;
        if let (Some(ca), Some(certificate), Some(key)) = (ca, certificate, private_key) {
            return Self::of_files(ca, certificate, key);
        }
        let store = IdentityStore::new(&config.host.state_directory);
        let identity = store.load()?.ok_or_else(|| CredentialsError::None(store.path()))?;
        let credentials = Self::of_identity(&identity, &store.path())?;
        if identity.machine != host::machine(&credentials.public) {
            return Err(CredentialsError::OtherMachine(store.path()));
        }
        Ok(credentials)
    }

    /// Checks what enrolment brought.
    pub(super) fn of_identity(identity: &Identity, path: &Path) -> Result<Self, CredentialsError> {
        let damaged = |problem| CredentialsError::Damaged { path: path.to_owned(), problem };
        let host_key = HostKey::from_pkcs8_pem(&identity.key).map_err(|error| damaged(error.to_string()))?;
        let authorities: Vec<_> = identity.authorities.iter().cloned().map(CertificateDer::from).collect();
        if authorities.is_empty() {
            return Err(damaged("it holds no authority".to_owned()));
        }
        let chain = vec![CertificateDer::from(identity.certificate.clone())];
        let examined = examine(&identity.certificate, &host_key).map_err(damaged)?;
        Ok(Self::new(
            examined,
            identity.key.clone(),
            &host_key,
            chain,
            authorities,
            Some(identity.clone()),
            path,
        ))
    }

    fn of_files(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        let authorities = certificates("ca", ca)?;
        let chain = certificates("certificate", certificate)?;
        let text = read("private_key", key)?;
        let wrong = |setting, path: &Path| {
            let path = path.to_owned();
            move |problem: String| CredentialsError::Content { setting, path, problem }
        };
        let host_key = HostKey::from_pkcs8_pem(&text)
            .map_err(|error: KeyError| error.to_string())
            .map_err(wrong("private_key", key))?;
        let first = chain.first().map(|first| &first[..]).unwrap_or_default();
        let examined = examine(first, &host_key).map_err(wrong("certificate", certificate))?;
        Ok(Self::new(examined, text, &host_key, chain, authorities, None, key))
    }

    fn new(
        examined: Examined,
        key: String,
        host_key: &HostKey,
        chain: Vec<CertificateDer<'static>>,
        authorities: Vec<CertificateDer<'static>>,
        kept: Option<Identity>,
        path: &Path,
    ) -> Self {
        let Examined { host_id, begins, ends } = examined;
        let (public, path) = (host_key.public(), path.to_owned());
        Self { host_id, key, public, chain, authorities, begins, ends, kept, path }
    }

    /// The id in the certificate.
    #[must_use]
    pub fn host_id(&self) -> &HostId {
        &self.host_id
    }

    /// Whether these are another host's than `other`.
    #[must_use]
    pub fn is_other_host(&self, other: &Self) -> bool {
        self.host_id != other.host_id || self.public != other.public
    }

    /// Whether these are not the same certificate as `other`.
    pub(crate) fn has_other_certificate(&self, other: &Self) -> bool {
        self.chain != other.chain
    }

    /// The public half of the key.
    #[must_use]
    pub fn public(&self) -> &HostPublicKey {
        &self.public
    }

    /// The key of the certificate, for signing batches.
    ///
    /// # Errors
    /// None that [`Credentials::load`] would not have found.
    pub fn host_key(&self) -> Result<HostKey, CredentialsError> {
        HostKey::from_pkcs8_pem(&self.key).map_err(|error: KeyError| CredentialsError::Damaged {
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }

    /// For connections on which both sides show certificates.
    pub(crate) fn trust(&self) -> Result<Trust, LinkError> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| LinkError::Tls(rustls::Error::General("the key cannot be read".to_owned())))?;
        Trust::mutual(&self.authorities, self.chain.clone(), key)
    }

    /// When the certificate should be renewed: at two thirds of its life, or up to a tenth of it earlier, by `part` (0 to
    /// 1). `None`: never, as it was issued by hand.
    pub(crate) fn renewal(&self, part: f64) -> Option<SystemTime> {
        self.kept.as_ref()?;
        Some(self.begins + self.life().mul_f64(2.0 / 3.0 - 0.1 * part.clamp(0.0, 1.0)))
    }

    /// From the certificate's beginning to its end.
    pub(crate) fn life(&self) -> Duration {
        self.ends.duration_since(self.begins).unwrap_or_default()
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.ends <= SystemTime::now()
    }

    /// The same host with a new certificate, which is kept.
    pub(crate) fn renewed(
        &self,
        certificate: Vec<u8>,
        authorities: Vec<Vec<u8>>,
        store: &IdentityStore,
    ) -> Result<Self, CredentialsError> {
        let Some(kept) = &self.kept else { return Err(CredentialsError::None(store.path())) };
        let identity = Identity { certificate, authorities, ..kept.clone() };
        let renewed = Self::of_identity(&identity, &store.path())?;
        if renewed.is_other_host(self) {
            let problem = "the collector sent the certificate of another host".to_owned();
            return Err(CredentialsError::Damaged { path: store.path(), problem });
        }
        store.save(&identity)?;
        Ok(renewed)
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

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let text = read(setting, path)?;
    let wrong = |problem: &str| CredentialsError::Content {
        setting,
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| wrong("this is not a PEM file"))?;
    if found.is_empty() {
        return Err(wrong("this file holds no certificate in PEM form"));
    }
    if found.iter().any(|certificate| X509Certificate::from_der(certificate).is_err()) {
        return Err(wrong("the certificate is damaged"));
    }
    Ok(found)
}

/// What a certificate says.
struct Examined {
    host_id: HostId,
    begins: SystemTime,
    ends: SystemTime,
}

fn examine(certificate: &[u8], key: &HostKey) -> Result<Examined, String> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| "the certificate is damaged".to_owned())?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public().as_bytes() {
        return Err("the certificate belongs to another key".to_owned());
    }
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let validity = certificate.validity();
    Ok(Examined {
        host_id: host_id(&certificate)?,
        begins: time(validity.not_before.timestamp()),
        ends: time(validity.not_after.timestamp()),
    })
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
