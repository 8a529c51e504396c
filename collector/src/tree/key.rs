//! The log's own key, and its name.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use buildtrail_evidence::{
    digest::Digest,
    key::HostKey,
    tlog::note::{KeyKind, NoteSigner},
};

use super::{TreeError, files};

/// Reads the key, or makes it at the first start.
pub(crate) fn load_or_make(path: &Path, kind: KeyKind, name: &str) -> Result<NoteSigner, TreeError> {
    let wrong = |problem: String| TreeError::Key { path: path.to_owned(), problem };
    let pem = match fs::read_to_string(path) {
        Ok(pem) => {
            let mode = fs::metadata(path).map_err(TreeError::io("examine", path))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(wrong("others may read it; make its mode 0600".into()));
            }
            pem
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
                .map_err(|error| wrong(error.to_string()))?;
            let pem = made.serialize_pem();
            files::write_private(path, pem.as_bytes())?;
            pem
        }
        Err(error) => return Err(TreeError::io("read", path)(error)),
    };
    let key = HostKey::from_pkcs8_pem(&pem).map_err(|error| wrong(error.to_string()))?;
    let name = if name.is_empty() { default_name(&key) } else { name.to_owned() };
    Ok(NoteSigner::new(&name, kind, key)?)
}

/// A name that no other key has.
fn default_name(key: &HostKey) -> String {
    let digest = Digest::of(key.public().as_bytes()).to_string();
    format!("buildtrail-{}", &digest[..16])
}
