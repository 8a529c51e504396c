//! Asking the identity provider over HTTPS: small requests, small answers, no redirects, a bounded time.

use std::{path::Path, pin::Pin, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use openidconnect::AsyncHttpClient;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::config::is_trustworthy;

/// For one request, from the first packet to the last byte of the answer.
const TIME: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// No answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0} is neither HTTPS nor on this machine")]
    Untrustworthy(String),
    #[error("it took longer than {} s", TIME.as_secs())]
    TooSlow,
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is too large or broke off: {0}")]
    Body(String),
}

/// Which authorities are believed.
#[derive(Clone)]
pub(super) struct Fetch(TlsConnector);

impl Fetch {
    /// Believes the authorities in this file, or those of the system.
    pub(super) fn new(authorities: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authorities {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let found =
                read.map_err(|error| format!("cannot use access.oidc.ca, {}: {error}", path.display()))?;
            roots.add_parsable_certificates(found);
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn ask(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, FetchError> {
        let uri = request.uri().clone();
        let untrustworthy = || FetchError::Untrustworthy(uri.to_string());
        if !is_trustworthy(&uri.to_string()) {
            return Err(untrustworthy());
        }
        let host = uri.host().ok_or_else(untrustworthy)?.trim_matches(['[', ']']).to_owned();
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((&*host, port)).await?;
        if tls {
            let name = ServerName::try_from(host).map_err(|_| untrustworthy())?;
            send(self.0.connect(name, stream).await?, request, &uri).await
        } else {
            send(stream, request, &uri).await
        }
    }
}

impl<'c> AsyncHttpClient<'c> for Fetch {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(async move { timeout(TIME, self.ask(request)).await.map_err(|_| FetchError::TooSlow)? })
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Vec<u8>>,
    uri: &Uri,
) -> Result<Response<Vec<u8>>, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().unwrap_or_default();
    if let Some(host) = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        parts.headers.insert(header::HOST, host);
    }
    let answer = sender.send_request(Request::from_parts(parts, Full::new(Bytes::from(body)))).await?;
    let (parts, body) = answer.into_parts();
    let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    driving.abort();
    let body = read.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes().to_vec();
    Ok(Response::from_parts(parts, body))
}
