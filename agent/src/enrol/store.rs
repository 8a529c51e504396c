//! `identity.pem` in the state directory: all that makes this host the one it is, in one file that is replaced as a whole.
//!
//! A line `machine: DIGITS`, then PEM blocks: the key (unless systemd holds it), the certificate, the authorities.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use buildtrail_evidence::key::HostKey;
use pem::Pem;
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};

/// Largest file of an identity, in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// What systemd calls the key (`LoadCredential=` or `LoadCredentialEncrypted=`).
const SYSTEMD_CREDENTIAL: &str = "buildtrail-host-key";

/// The identity cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: &'static str,
    },
}

/// What enrolment brought. `Debug` never shows the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// PKCS#8 PEM.
    pub(super) key: String,
    /// DER.
    pub(super) certificate: Vec<u8>,
    /// DER.
    pub(super) authorities: Vec<Vec<u8>>,
    /// The machine that enrolled.
    pub(super) machine: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Where the identity is kept.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    directory: PathBuf,
    systemd: Option<PathBuf>,
}

impl IdentityStore {
    /// In the state directory; the key in systemd's credential directory, if it is there.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        let systemd = env::var_os("CREDENTIALS_DIRECTORY")
            .map(|directory| PathBuf::from(directory).join(SYSTEMD_CREDENTIAL));
        Self { directory: state_directory.to_owned(), systemd: systemd.filter(|path| path.exists()) }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join("identity.pem")
    }

    /// A key that was made and has no certificate yet: the next attempt uses it again.
    fn pending(&self) -> PathBuf {
        self.directory.join("identity-pending.pem")
    }

    /// The identity, if the host has one.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is damaged.
    pub fn load(&self) -> Result<Option<Identity>, StoreError> {
        let path = self.path();
        let Some(text) = read_secret(&path)? else { return Ok(None) };
        let wrong = |problem| StoreError::Content { path: path.clone(), problem };
        let key = match &self.systemd {
            Some(systemd) => read(systemd)?,
            None => key_of(&text).ok_or_else(|| wrong("it holds no Ed25519 key; enrol again"))?,
        };
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|_| wrong("it is damaged; enrol again"))?;
        let mut certificates = certificates.into_iter().map(|certificate| certificate.to_vec());
        let certificate = certificates.next().ok_or_else(|| wrong("it holds no certificate; enrol again"))?;
        let machine = text.lines().find_map(|line| line.strip_prefix("machine: ")).unwrap_or_default();
        let machine = machine.to_owned();
        Ok(Some(Identity { key, certificate, authorities: certificates.collect(), machine }))
    }

    /// The key to enrol with: systemd's, the present one, one that was made before and got no certificate, or a new one.
    pub(super) fn key_to_enrol(&self, new: bool) -> Result<String, StoreError> {
        if let Some(systemd) = &self.systemd {
            if new {
                let problem = "this key is in use elsewhere: replace the systemd credential by a new key";
                return Err(StoreError::Content { path: systemd.clone(), problem });
            }
            return read(systemd);
        }
        let known = if new { None } else { read_secret(&self.path())?.as_deref().and_then(key_of) };
        if let Some(key) = known {
            return Ok(key);
        }
        if let Some(key) = read_secret(&self.pending())?.as_deref().and_then(key_of) {
            return Ok(key);
        }
        let made = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| StoreError::Io {
            action: "make the key",
            path: self.pending(),
            source: io::Error::other(error.to_string()),
        })?;
        let key = made.serialize_pem();
        self.write(&self.pending(), &key)?;
        Ok(key)
    }

    /// Forgets a key that was made and is of no use.
    pub(super) fn forget_pending(&self) {
        // If it stays, the next enrolment tries it again and is told so.
        let _ = fs::remove_file(self.pending());
    }

    /// Replaces the identity; after a crash it is the old one or the new one.
    pub(crate) fn save(&self, identity: &Identity) -> Result<(), StoreError> {
        let key = if self.systemd.is_some() { "" } else { identity.key.trim_end() };
        let mut text = format!("machine: {}\n{key}\n", identity.machine);
        for certificate in std::iter::once(&identity.certificate).chain(&identity.authorities) {
            text.push_str(&pem::encode(&Pem::new("CERTIFICATE", &certificate[..])));
        }
        self.write(&self.path(), &text)?;
        self.forget_pending();
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { action: "write", path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed)?;
        let unfinished = path.with_extension("new");
        let _left_by_a_crash = fs::remove_file(&unfinished);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&unfinished, path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

/// The text of the first private key, if it is one that can be used.
fn key_of(text: &str) -> Option<String> {
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
    let begin = text.find("-----BEGIN PRIVATE KEY-----")?;
    let end = text[begin..].find("-----END PRIVATE KEY-----")? + begin + "-----END PRIVATE KEY-----".len();
    let key = format!("{}\n", &text[begin..end]);
    HostKey::from_pkcs8_pem(&key).is_ok().then_some(key)
}

/// A file that only its owner may read; `None` where there is no file.
fn read_secret(path: &Path) -> Result<Option<String>, StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let problem =
                "others than its owner may use it: chmod 600, and enrol again if they may have read it";
            return Err(StoreError::Content { path: path.to_owned(), problem });
        }
        Ok(_) => {}
    }
    read(path).map(Some)
}

fn read(path: &Path) -> Result<String, StoreError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|source| StoreError::Io { action: "read", path: path.to_owned(), source })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity(key: String) -> Identity {
        let (certificate, authorities) = (vec![1; 300], vec![vec![2; 49], vec![3; 48]]);
        Identity { key, certificate, authorities, machine: "ab".repeat(32) }
    }

    #[test]
    fn an_identity_survives_being_kept_and_only_its_owner_can_read_it() {
        let state = tempfile::tempdir().unwrap();
        let store = IdentityStore { directory: state.path().join("deep"), systemd: None };
        assert!(store.load().unwrap().is_none());
        let kept = identity(store.key_to_enrol(false).unwrap());
        store.save(&kept).unwrap();
        assert!(store.load().unwrap() == Some(kept.clone()));
        assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!store.pending().exists());
        assert!(!format!("{kept:?}").contains("PRIVATE"));

        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(store.load().unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_key_is_used_again_until_it_has_a_certificate_and_then_unless_a_new_one_is_wanted() {
        let state = tempfile::tempdir().unwrap();
        let store = IdentityStore { directory: state.path().to_owned(), systemd: None };
        let first = store.key_to_enrol(false).unwrap();
        assert_eq!(store.key_to_enrol(false).unwrap(), first);
        store.save(&identity(first.clone())).unwrap();
        assert_eq!(store.key_to_enrol(false).unwrap(), first);
        let second = store.key_to_enrol(true).unwrap();
        assert_ne!(second, first);
        assert_eq!(store.key_to_enrol(true).unwrap(), second);
    }

    #[test]
    fn a_key_that_systemd_holds_is_not_written() {
        let state = tempfile::tempdir().unwrap();
        let credential = state.path().join(SYSTEMD_CREDENTIAL);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
        fs::write(&credential, &key).unwrap();
        let store = IdentityStore { directory: state.path().to_owned(), systemd: Some(credential) };
        assert_eq!(store.key_to_enrol(false).unwrap(), key);
        assert!(store.key_to_enrol(true).unwrap_err().to_string().contains("systemd credential"));
        store.save(&identity(key.clone())).unwrap();
        assert!(!fs::read_to_string(store.path()).unwrap().contains("PRIVATE"));
        assert_eq!(store.load().unwrap().unwrap().key, key);
    }
}
