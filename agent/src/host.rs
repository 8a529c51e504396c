//! Which machine and which boot this is.

use std::{fs, io};

use buildtrail_evidence::{
    id::{BootId, HostId, IdError},
    key::HostPublicKey,
};
use sha2::{Digest as _, Sha256};

/// The machine or the boot cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file that every Linux system has is missing.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// The kernel's random boot id.
///
/// # Errors
///
/// /proc is not mounted.
pub fn boot_id() -> Result<BootId, HostError> {
    Ok(BootId::parse(read("/proc/sys/kernel/random/boot_id")?.trim())?)
}

/// An id for a host that has no certificate: "machine-" and 32 hexadecimal digits of the SHA-256 of
/// "buildtrail host v1\n" and /etc/machine-id, which itself must not be shown (machine-id(5)).
///
/// # Errors
///
/// The system has no machine id.
pub fn id_without_certificate() -> Result<HostId, HostError> {
    let machine = read("/etc/machine-id")?;
    let digest = Sha256::digest(format!("buildtrail host v1\n{}", machine.trim()));
    Ok(HostId::parse(&format!("machine-{}", hex::encode(&digest[..16])))?)
}

/// Which machine this is, for the collector: 64 hexadecimal digits of the SHA-256 of "buildtrail machine v1\n" and
/// /etc/machine-id. Where there is no machine id (yet), the host's key stands for it.
#[must_use]
pub fn machine(key: &HostPublicKey) -> String {
    let id = read("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    let valid = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let what = if valid { id.to_owned() } else { format!("key {key}") };
    hex::encode(Sha256::digest(format!("buildtrail machine v1\n{what}")))
}

/// The kernel's host name, with everything but letters, digits, '.', '_' and '-' replaced; "host" where there is none.
#[must_use]
pub fn name() -> String {
    let name = read("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.trim().chars().take(64).map(plain).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

fn read(path: &'static str) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(|source| HostError::Read { path, source })
}
