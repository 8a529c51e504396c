//! The door: TLS 1.3 with a client certificate, or nothing.
//!
//! In: TCP connections. Out: [`Connection`]s whose peer is known. Handshakes happen here rather than in the gRPC stack,
//! so that each refusal is counted, bounded in time and in number, and no peer waits for another.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::{
    config::Tls,
    health::{Health, Refusal},
    peer::{Peer, PeerInfo},
};

const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Finished handshakes that wait to be served.
const BACKLOG: usize = 16;
/// Pause after the system could not accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Missing, not readable, or not PEM.
    #[error(
        "cannot use {} as {what}: {source}; `buildtrail-collector ca init` makes the files, [tls] in the settings \
         names them",
        path.display()
    )]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The files do not fit together.
    #[error("the files of [tls] do not go together: {0}")]
    Config(String),
}

/// Reads the files of `[tls]` and makes a configuration that lets in only peers with a certificate of our authority.
pub(crate) fn acceptor(files: &Tls) -> Result<TlsAcceptor, TlsError> {
    let config_error = |error: &dyn std::error::Error| TlsError::Config(error.to_string());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authority of hosts and readers", &files.ca)? {
        roots.add(certificate).map_err(|error| config_error(&error))?;
    }
    let chain = certificates("the collector's certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(file_error("the collector's private key", &files.private_key))?;

    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| config_error(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| config_error(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| config_error(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(file_error(what, path))?;
    if found.is_empty() {
        let source = rustls::pki_types::pem::Error::NoItemsFound;
        return Err(TlsError::File { what, path: path.to_owned(), source });
    }
    Ok(found)
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(rustls::pki_types::pem::Error) -> TlsError {
    move |source| TlsError::File { what, path: path.to_owned(), source }
}

/// Accepts connections for ever; those that pass come out of the returned channel. Ends when the receiver is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    max_connections: usize,
    health: Arc<Health>,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let places = Arc::new(Semaphore::new(max_connections));
    tokio::spawn(async move {
        loop {
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        health.refuse(Refusal::Busy, "a connection", &error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = sender.closed() => return,
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                health.refuse(Refusal::Busy, address, "limits.max_connections is reached");
                continue;
            };
            tokio::spawn(admit(stream, address, acceptor.clone(), place, health.clone(), sender.clone()));
        }
    });
    receiver
}

async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    place: OwnedSemaphorePermit,
    health: Arc<Health>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    // Batches and acknowledgements are small and waited for.
    let nodelay = stream.set_nodelay(true);
    let shaken = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await;
    let stream = match (nodelay, shaken) {
        (Ok(()), Ok(Ok(stream))) => stream,
        (_, Ok(Err(error))) | (Err(error), _) => return health.refuse(Refusal::Handshake, address, error),
        (_, Err(_)) => return health.refuse(Refusal::Handshake, address, "the TLS handshake took too long"),
    };
    let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        return health.refuse(Refusal::Handshake, address, "no client certificate");
    };
    let peer = Arc::new(Peer::of_certificate(certificate));
    health.connections.add(1);
    tracing::debug!(%peer, %address, "connected");
    // A closed channel means that the collector is stopping.
    let _ = sender.send(Ok(Connection { stream, peer, _place: place })).await;
}

/// A TLS connection, its peer, and its place among the allowed ones.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo(self.peer.clone())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
