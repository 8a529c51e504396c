//! Issuers' key sets: fetched when they are needed, kept for a while.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::token::KeySet;

/// For one request and its answer.
const TIME: Duration = Duration::from_secs(10);
/// Longest key set, in bytes.
const MAX_KEYS: usize = 256 * 1024;
/// How long a key set is believed.
const FRESH: Duration = Duration::from_mins(10);
/// Between two attempts, also when a token names a key that is not there: anybody can name one.
const PAUSE: Duration = Duration::from_secs(30);

/// Where the keys are, and what was found there.
pub(crate) struct KeySource {
    url: Uri,
    /// Absent for http.
    tls: Option<TlsConnector>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Option<(KeySet, Instant)>,
    tried: Option<Instant>,
}

impl KeySource {
    pub(crate) fn new(url: Uri, tls: Option<TlsConnector>) -> Self {
        Self { url, tls, kept: Mutex::default() }
    }

    /// The keys; fetched anew when they are old, or do not hold `wanted`.
    pub(crate) async fn keys(&self, wanted: Option<&str>) -> Result<KeySet, String> {
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        if let Some((keys, fetched)) = &kept.keys
            && now - *fetched < FRESH
            && wanted.is_none_or(|id| keys.has(id))
        {
            return Ok(keys.clone());
        }
        let too_soon = kept.tried.is_some_and(|tried| now - tried < PAUSE);
        if !too_soon {
            kept.tried = Some(now);
            match timeout(TIME, self.fetch()).await.unwrap_or_else(|_| Err("it took too long".to_owned())) {
                Ok(keys) => kept.keys = Some((keys, now)),
                Err(why) => tracing::warn!(url = %self.url, why, "the keys of an issuer cannot be fetched"),
            }
        }
        let fresh = kept.keys.as_ref().filter(|(_, fetched)| now - *fetched < FRESH);
        fresh.map(|(keys, _)| keys.clone()).ok_or_else(|| "the issuer's keys cannot be fetched".to_owned())
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let host = self.url.host().ok_or("its URL names no host")?;
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).header(HOST, format!("{host}:{port}")).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let text = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(address.0.to_owned()).map_err(|error| error.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
                exchange(stream, request).await?
            }
            None => exchange(stream, request).await?,
        };
        KeySet::parse(&text).ok_or_else(|| "what it serves is no key set".to_owned())
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<String, String> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(response.status().to_string());
        }
        let body = Limited::new(response.into_body(), MAX_KEYS).collect().await;
        let body = body.map_err(|_| "its answer is too long or broke off")?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    let answer = answer.await;
    driving.abort();
    answer
}
