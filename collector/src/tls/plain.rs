//! TLS where only the server shows a certificate: between a log and its witnesses, where signatures say who is who.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TlsError, certificates, file_error};

/// For a server with these PEM files.
pub(crate) fn plain_acceptor(certificate: &Path, private_key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates("the certificate", certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(private_key).map_err(file_error("the private key", private_key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    config
        .map(|config| TlsAcceptor::from(Arc::new(config)))
        .map_err(|error| TlsError::Config(error.to_string()))
}

/// For a client that believes this authority.
pub(crate) fn plain_connector(authority: &Path) -> Result<TlsConnector, TlsError> {
    let config_error = |error: rustls::Error| TlsError::Config(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authority of witnesses", authority)? {
        roots.add(certificate).map_err(config_error)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(config_error)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
