//! The authority's key at work: certificates for hosts, issued while the collector runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use buildtrail_evidence::{digest::Digest, id::HostId, key::HostPublicKey};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo, string::Ia5String,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use uuid::Uuid;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

use crate::peer::HOST_URI;

/// A certificate is valid from before it is issued, as clocks differ: by this part of its lifetime.
const BACKDATED_PART: u32 = 12;
/// DER of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410) up to the key.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Certificates cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key file.
    #[error("enrol.authority_key: cannot use {}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Signing failed.
    #[error("the certificate cannot be made: {0}")]
    Issue(String),
}

/// A certificate that was just issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issued {
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// Seconds since the epoch.
    pub(crate) expires: i64,
}

/// Issues hosts' certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    lifetime: Duration,
    pin: Digest,
}

impl Authority {
    /// The key in `path` must be readable by its owner alone and belong to one of the `authorities` (DER).
    pub(crate) fn load(
        path: &Path,
        authorities: &[CertificateDer<'_>],
        lifetime: Duration,
    ) -> Result<Self, AuthorityError> {
        let wrong = |problem: String| AuthorityError::Key { path: path.to_owned(), problem };
        let mode = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong("others than its owner may use it: chmod 600".to_owned()));
        }
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let key = KeyPair::from_pem(&text).map_err(|error| wrong(error.to_string()))?;
        let info = key.subject_public_key_info();
        let certificate = authorities
            .iter()
            .find(|certificate| public_key_info(certificate).is_some_and(|found| found == info))
            .ok_or_else(|| wrong("it belongs to none of the authorities in tls.ca".to_owned()))?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { issuer, lifetime, pin: Digest::of(&info) })
    }

    /// SHA-256 of the authority's `SubjectPublicKeyInfo`.
    pub(crate) fn pin(&self) -> Digest {
        self.pin
    }

    /// A certificate for a host's key.
    pub(crate) fn issue(
        &self,
        host: &HostId,
        name: &str,
        key: &HostPublicKey,
    ) -> Result<Issued, AuthorityError> {
        let failed = |error: &dyn std::fmt::Display| AuthorityError::Issue(error.to_string());
        let now = unix_seconds(SystemTime::now());
        let lifetime = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let expires = now.saturating_add(lifetime);
        let date = |seconds| {
            ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()).map_err(|error| failed(&error))
        };
        let role = Ia5String::try_from(format!("{HOST_URI}{host}")).map_err(|error| failed(&error))?;

        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date(now - lifetime / i64::from(BACKDATED_PART))?;
        params.not_after = date(expires)?;
        params.serial_number = Some(SerialNumber::from_slice(Uuid::now_v7().as_bytes()));
        params.subject_alt_names = vec![SanType::URI(role)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;

        let info = [&ED25519_SPKI[..], key.as_bytes()].concat();
        let info = SubjectPublicKeyInfo::from_der(&info).map_err(|error| failed(&error))?;
        let certificate = params.signed_by(&info, &self.issuer).map_err(|error| failed(&error))?;
        Ok(Issued { certificate: certificate.der().to_vec(), expires })
    }
}

/// The pin of an authority's certificate (PEM): SHA-256 of its `SubjectPublicKeyInfo`.
#[must_use]
pub fn pin_of_pem(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    Some(Digest::of(&public_key_info(&certificate)?).to_string())
}

fn public_key_info(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// Since the epoch; zero before it.
pub(super) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The key in a PKCS#10 request (DER) that was signed with it.
pub(super) fn requested_key(request: &[u8]) -> Option<HostPublicKey> {
    let request = rcgen::CertificateSigningRequestParams::from_der(&request.into()).ok()?;
    if request.public_key.algorithm() != &rcgen::PKCS_ED25519 {
        return None;
    }
    HostPublicKey::try_from(request.public_key.der_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use buildtrail_evidence::key::HostKey;

    use super::*;
    use crate::{ca, peer::Peer};

    fn authority() -> (tempfile::TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        ca::init(directory.path(), &["localhost".into()]).unwrap();
        let certificate = CertificateDer::from_pem_file(directory.path().join("ca.pem")).unwrap();
        let key = directory.path().join("ca-key.pem");
        let authority = Authority::load(&key, &[certificate], Duration::from_hours(24)).unwrap();
        (directory, authority)
    }

    #[test]
    fn an_issued_certificate_is_a_hosts_and_no_two_are_alike() {
        let (directory, authority) = authority();
        let (id, key) = (HostId::parse("h-1").unwrap(), HostKey::from_seed(&[3; 32]).public());
        let issued = authority.issue(&id, "runner-7", &key).unwrap();
        let Peer::Host(host) = Peer::of_certificate(&issued.certificate) else { panic!("not a host") };
        assert_eq!(
            (host.id.as_str(), &*host.name, host.key, host.expires),
            ("h-1", "runner-7", key, issued.expires)
        );
        assert_ne!(authority.issue(&id, "runner-7", &key).unwrap().certificate, issued.certificate);
        let pem = fs::read(directory.path().join("ca.pem")).unwrap();
        assert_eq!(pin_of_pem(&pem).unwrap(), authority.pin().to_string());
    }

    #[test]
    fn a_request_counts_only_when_its_own_key_signed_it() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
        assert_eq!(requested_key(&request).unwrap().as_bytes(), key.der_bytes());
        for at in [request.len() - 1, request.len() / 2] {
            let mut altered = request.clone();
            altered[at] ^= 1;
            assert!(requested_key(&altered).is_none(), "byte {at}");
        }
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&other).unwrap();
        assert!(requested_key(request.der()).is_none());
        assert!(requested_key(b"garbage").is_none());
    }

    #[test]
    fn a_key_that_others_can_read_or_of_another_authority_is_refused() {
        let (directory, _) = authority();
        let key = directory.path().join("ca-key.pem");
        let certificate = CertificateDer::from_pem_file(directory.path().join("ca.pem")).unwrap();
        let load = |key: &Path, certificate: &CertificateDer<'static>| {
            let loaded = Authority::load(key, std::slice::from_ref(certificate), Duration::from_mins(1));
            loaded.err().unwrap().to_string()
        };
        let (other, _authority) = authority();
        let foreign = CertificateDer::from_pem_file(other.path().join("ca.pem")).unwrap();
        assert!(load(&key, &foreign).contains("none of the authorities"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&key, &certificate).contains("chmod 600"));
        assert!(load(&directory.path().join("none.pem"), &certificate).contains("enrol.authority_key"));
    }
}
