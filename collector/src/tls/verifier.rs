//! Whose certificates pass the handshake of a collector at which hosts can enrol and renew, or people sign in.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::peer::Peer;

/// Lets in whom the strict verifier lets in; besides, peers without a certificate, who may only enrol or sign in, and, if
/// hosts can renew here, hosts whose certificate has expired, who may only renew it. [`crate::peer`] knows both for what
/// they are.
#[derive(Debug)]
pub(super) struct Lenient {
    pub(super) strict: Arc<dyn ClientCertVerifier>,
    pub(super) renewal: bool,
}

impl ClientCertVerifier for Lenient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.strict.verify_client_cert(certificate, intermediates, now) {
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) if self.renewal => {
                let Peer::Host(host) = Peer::of_certificate(certificate) else {
                    return Err(CertificateError::Expired.into());
                };
                let end = Duration::from_secs(u64::try_from(host.expires).unwrap_or_default());
                let end = UnixTime::since_unix_epoch(end);
                self.strict.verify_client_cert(certificate, intermediates, end)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
