//! A small private certificate authority for the collector, its hosts and its readers.
//!
//! In: names. Out: directories with `ca.pem`, `cert.pem` and `key.pem`. A host's key also signs its batches.
//! Must never overwrite a file, or write a private key that others can read.

mod files;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use buildtrail_evidence::id::is_valid_id;
use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, date_time_ymd, string::Ia5String,
};
use uuid::Uuid;

use crate::{
    enrol::pin_of_pem,
    peer::{ADMIN_URI, HOST_URI, READER_URI},
};

const CA_YEARS: i32 = 10;
const LEAF_YEARS: i32 = 1;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} is not usable as a name: {why}")]
    Name {
        /// The name.
        name: String,
        /// What would be right.
        why: &'static str,
    },
    /// A file is there already.
    #[error("{} exists and is not overwritten; move it away or choose another directory", .0.display())]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The authority's own files cannot be used.
    #[error("{} holds no usable authority: {source}; `ca init --dir` makes one", directory.display())]
    Authority {
        /// The directory.
        directory: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// Making the key or signing failed.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes an authority (`ca.pem`, `ca-key.pem`) and the collector's certificate (`cert.pem`, `key.pem`) for `names`
/// (DNS names or IP addresses) in `directory`.
///
/// # Errors
/// A file exists already, a name is not usable, or the disk refuses. Nothing is overwritten.
pub fn init(directory: &Path, names: &[String]) -> Result<(), CaError> {
    let Some(first) = names.first() else {
        let why = "give the collector's DNS name or address, as hosts will call it";
        return Err(CaError::Name { name: String::new(), why });
    };
    let sans = names.iter().map(|name| server_name(name)).collect::<Result<Vec<_>, _>>()?;
    files::ensure_absent(directory, &["ca.pem", "ca-key.pem", "cert.pem", "key.pem"])?;

    // Browsers know no Ed25519.
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = params("Buildtrail authority", CA_YEARS);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let ca_key_pem = ca_key.serialize_pem();

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let server = leaf(first, sans, ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;

    files::make_directory(directory)?;
    files::write_secret(&directory.join("ca-key.pem"), &ca_key_pem)?;
    files::write(&directory.join("ca.pem"), &ca_pem)?;
    files::write_secret(&directory.join("key.pem"), &key.serialize_pem())?;
    files::write(&directory.join("cert.pem"), &certificate.pem())
}

/// Issues a host's certificate to `out` and returns the new host id (a `UUIDv7`). The key is Ed25519, PKCS#8 PEM, mode
/// 0600, and also signs the host's batches.
///
/// # Errors
/// The authority in `directory` is not usable, the name is not (letters, digits, `.`, `_`, `:`, `-`), a file in `out`
/// exists already, or the disk refuses.
pub fn issue_host(directory: &Path, name: &str, out: &Path) -> Result<String, CaError> {
    let id = Uuid::now_v7().to_string();
    issue(directory, name, &format!("{HOST_URI}{id}"), out)?;
    Ok(id)
}

/// Issues a reader's certificate to `out`: for people and programs that ask the collector.
///
/// # Errors
/// As [`issue_host`].
pub fn issue_reader(directory: &Path, name: &str, out: &Path) -> Result<(), CaError> {
    issue(directory, name, &format!("{READER_URI}{name}"), out)
}

/// Issues an administrator's certificate to `out`: for those who decide which hosts there are.
///
/// # Errors
/// As [`issue_host`].
pub fn issue_admin(directory: &Path, name: &str, out: &Path) -> Result<(), CaError> {
    issue(directory, name, &format!("{ADMIN_URI}{name}"), out)
}

/// The pin of the authority in `directory`: SHA-256 of its public key (`SubjectPublicKeyInfo`), 64 hexadecimal digits.
///
/// # Errors
/// There is no certificate of an authority.
pub fn pin(directory: &Path) -> Result<String, CaError> {
    let pem = files::read(&directory.join("ca.pem"))?;
    let source = rcgen::Error::CouldNotParseCertificate;
    pin_of_pem(pem.as_bytes()).ok_or_else(|| CaError::Authority { directory: directory.to_owned(), source })
}

fn issue(directory: &Path, name: &str, role: &str, out: &Path) -> Result<(), CaError> {
    let not_usable =
        || CaError::Name { name: name.to_owned(), why: "use 1 to 64 letters, digits, '.', '_', ':' or '-'" };
    if !is_valid_id(name) || name.len() > 64 {
        return Err(not_usable());
    }
    files::ensure_absent(out, &["ca.pem", "cert.pem", "key.pem"])?;
    let ca_pem = files::read(&directory.join("ca.pem"))?;
    let authority = |source| CaError::Authority { directory: directory.to_owned(), source };
    let ca_key = KeyPair::from_pem(&files::read(&directory.join("ca-key.pem"))?).map_err(authority)?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(authority)?;

    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let role = SanType::URI(Ia5String::try_from(role).map_err(|_| not_usable())?);
    let certificate = leaf(name, vec![role], ExtendedKeyUsagePurpose::ClientAuth).signed_by(&key, &issuer)?;

    files::make_directory(out)?;
    files::write_secret(&out.join("key.pem"), &key.serialize_pem())?;
    files::write(&out.join("cert.pem"), &certificate.pem())?;
    files::write(&out.join("ca.pem"), &ca_pem)
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-*".contains(&byte);
    let dns = Ia5String::try_from(name).ok().filter(|_| !name.is_empty() && name.bytes().all(plain));
    let why = "use a DNS name or an IP address, several separated by commas";
    dns.map(SanType::DnsName).ok_or_else(|| CaError::Name { name: name.to_owned(), why })
}

fn leaf(name: &str, sans: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut leaf = params(name, LEAF_YEARS);
    leaf.subject_alt_names = sans;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![usage];
    leaf.use_authority_key_identifier_extension = true;
    leaf
}

/// Valid from yesterday, as clocks differ.
fn params(name: &str, years: i32) -> CertificateParams {
    let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let (year, month, day) = year_month_day(today.saturating_sub(1.day()));
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = year_month_day(today.saturating_add(years.years()));
    params.not_after = date_time_ymd(year, month, day);
    params
}

fn year_month_day(date: Date) -> (i32, u8, u8) {
    let part = |value: i8| u8::try_from(value).unwrap_or(1);
    (i32::from(date.year()), part(date.month()), part(date.day()))
}

#[cfg(test)]
mod tests;
