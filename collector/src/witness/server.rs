//! A witness over HTTP.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use buildtrail_evidence::tlog::note::NoteKey;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub use super::cosigner::WitnessError;
use super::cosigner::{Cosigner, MAX_REQUEST, Reply};
use crate::tls;

/// Most connections at a time; further ones wait.
const MAX_CONNECTIONS: usize = 256;
/// For the head of a request, also the idle time of a connection.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// For the rest of it, and for a TLS handshake.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Pause after the system could not accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a witness is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Directory of its key and its memory; made if it is missing.
    pub directory: PathBuf,
    /// Its name.
    pub name: String,
    /// The logs it watches.
    pub logs: Vec<NoteKey>,
    /// Certificate and key (PEM); without them it speaks plain HTTP, on loopback addresses only.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A witness that serves until it is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    key: NoteKey,
    serving: JoinHandle<()>,
}

impl Running {
    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> &NoteKey {
        &self.key
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Starts a witness.
///
/// # Errors
/// See [`WitnessError`].
pub async fn start(settings: Settings) -> Result<Running, WitnessError> {
    let Settings { listen, directory, name, logs, tls } = settings;
    if tls.is_none() && !listen.ip().is_loopback() {
        return Err(WitnessError::Plaintext(listen));
    }
    let acceptor = tls.map(|(certificate, key)| tls::plain_acceptor(&certificate, &key)).transpose()?;
    let cosigner = Arc::new(Cosigner::open(&directory, &name, logs)?);
    let failed = |source| WitnessError::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let key = cosigner.public_key().clone();
    tracing::info!(%address, %key, "witness");
    let serving = tokio::spawn(accept(listener, acceptor, cosigner));
    Ok(Running { address, key, serving })
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, cosigner: Arc<Cosigner>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, cosigner) = (acceptor.clone(), cosigner.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, cosigner).await,
                Some(acceptor) => match timeout(BODY_TIME, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, cosigner).await,
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                    Err(_) => tracing::debug!("the TLS handshake took too long"),
                },
            }
            drop(place);
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, cosigner: Arc<Cosigner>) {
    let service = service_fn(move |request| answer(request, cosigner.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(
    request: Request<Incoming>,
    cosigner: Arc<Cosigner>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/add-checkpoint" {
        return Ok(text(StatusCode::NOT_FOUND, "a witness answers POST /add-checkpoint\n".into()));
    }
    if request.method() != Method::POST {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "POST\n".into()));
    }
    let body = timeout(BODY_TIME, Limited::new(request.into_body(), MAX_REQUEST).collect()).await;
    let Ok(Ok(body)) = body else {
        return Ok(text(StatusCode::BAD_REQUEST, "the request is too long or too slow\n".into()));
    };
    let body = body.to_bytes();
    let reply = tokio::task::spawn_blocking(move || cosigner.add_checkpoint(&body)).await;
    Ok(response(reply.unwrap_or(Reply::Failed)))
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    match reply {
        Reply::Cosigned(line) => text(StatusCode::OK, line),
        Reply::Malformed(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        Reply::NotSigned => text(StatusCode::FORBIDDEN, "not signed by the log's key\n".into()),
        Reply::UnknownLog => text(StatusCode::NOT_FOUND, "this log is not watched here\n".into()),
        Reply::OtherSize(size) => {
            let mut response = text(StatusCode::CONFLICT, format!("{size}\n"));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/x.tlog.size"));
            response
        }
        Reply::Forked => text(StatusCode::CONFLICT, "another tree of that size was cosigned\n".into()),
        Reply::Inconsistent => {
            text(StatusCode::UNPROCESSABLE_ENTITY, "the checkpoint does not begin with the last one\n".into())
        }
        Reply::Failed => text(StatusCode::INTERNAL_SERVER_ERROR, "nothing was cosigned\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
