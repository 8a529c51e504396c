//! The door: TLS 1.3 with a client certificate, or nothing.
//!
//! In: TCP connections. Out: [`Connection`]s whose peer is known. Handshakes happen here rather than in the gRPC stack,
//! so that each refusal is counted, bounded in time and in number, and no peer waits for another.
//! Where hosts can enrol or browsers are let in, peers without a certificate get in too, and where hosts can enrol, hosts
//! with an expired one; they are known as such.

mod connection;
mod first;
mod places;
mod plain;
mod verifier;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _};

pub(crate) use self::places::Places;
pub(crate) use self::{
    connection::Connection,
    first::files_of,
    places::Stay,
    plain::{plain_acceptor, plain_connector},
};
use self::{places::Place, verifier::Lenient};
use crate::{
    config::Tls,
    health::{Health, Refusal},
    peer::Peer,
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
    /// The collector's own authority could not be made.
    #[error(transparent)]
    First(#[from] crate::ca::CaError),
    /// The files do not fit together.
    #[error("the files of [tls] do not go together: {0}")]
    Config(String),
}

/// What the collector shows its peers, and whom it believes.
pub(crate) struct Files {
    /// The authorities of hosts and readers.
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Files {
    /// Reads the files of `[tls]`.
    pub(crate) fn read(files: &Tls) -> Result<Self, TlsError> {
        Ok(Self {
            authorities: certificates("the authority of hosts and readers", &files.ca)?,
            chain: certificates("the collector's certificate", &files.certificate)?,
            key: PrivateKeyDer::from_pem_file(&files.private_key)
                .map_err(file_error("the collector's private key", &files.private_key))?,
        })
    }

    /// The names for which the collector's certificate is good.
    pub(crate) fn names(&self) -> Vec<String> {
        let parsed = self.chain.first().and_then(|der| X509Certificate::from_der(der).ok());
        let Some((_, certificate)) = parsed else { return Vec::new() };
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                    .ok()
                    .map(|address| address.to_string())
            }
            _ => None,
        };
        names.value.general_names.iter().filter_map(name).collect()
    }

    /// A configuration that lets in only peers with a certificate of our authority; with `enrolment` also those who come
    /// to get one.
    /// Let in browsers as well, if `web`.
    pub(crate) fn acceptor(self, enrolment: bool, web: bool) -> Result<TlsAcceptor, TlsError> {
        let config_error = |error: &dyn std::error::Error| TlsError::Config(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in &self.authorities {
            roots.add(certificate.clone()).map_err(|error| config_error(&error))?;
        }
        let provider = Arc::new(ring::default_provider());
        let mut verifier: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| config_error(&error))?;
        let mut chain = self.chain;
        if enrolment || web {
            verifier = Arc::new(Lenient { strict: verifier, renewal: enrolment });
        }
        if enrolment {
            // Whoever comes to enrol knows the authority by its pin alone.
            chain.extend(self.authorities);
        }
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| config_error(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, self.key)
            .map_err(|error| config_error(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        if web {
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        // A resumed session would bring its certificate along without another look at it.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
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
    places: Places,
    health: Arc<Health>,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let door = Arc::new(Door { acceptor, places: Arc::new(places), health, sender });
    tokio::spawn(async move {
        loop {
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        door.health.refuse(Refusal::Busy, "a connection", &error);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                () = door.sender.closed() => return,
            };
            match door.places.for_handshake(address.ip()) {
                Ok(place) => {
                    tokio::spawn(door.clone().admit(stream, address, place));
                }
                Err(full) => door.health.refuse(Refusal::Busy, address, full),
            }
        }
    });
    receiver
}

struct Door {
    acceptor: TlsAcceptor,
    places: Arc<Places>,
    health: Arc<Health>,
    sender: mpsc::Sender<io::Result<Connection>>,
}

impl Door {
    async fn admit(self: Arc<Self>, stream: TcpStream, address: SocketAddr, handshaking: Place) {
        let health = &self.health;
        // Batches and acknowledgements are small and waited for.
        let nodelay = stream.set_nodelay(true);
        let shaken = tokio::time::timeout(HANDSHAKE_TIME, self.acceptor.accept(stream)).await;
        let stream = match (nodelay, shaken) {
            (Ok(()), Ok(Ok(stream))) => stream,
            (_, Ok(Err(error))) | (Err(error), _) => return health.refuse(why(&error), address, error),
            (_, Err(_)) => {
                return health.refuse(Refusal::Handshake, address, "the TLS handshake took too long");
            }
        };
        drop(handshaking);
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = Arc::new(certificate.map_or(Peer::Anonymous, |der| Peer::of_certificate(der)));
        let place = match self.places.for_peer(&peer, address.ip()) {
            Ok(place) => place,
            Err(full) => return health.refuse(Refusal::Busy, format_args!("{peer} at {address}"), full),
        };
        if peer.is_lasting() {
            health.connections.add(1);
        }
        tracing::debug!(%peer, %address, "connected");
        let stay = Stay::new(self.places.clone(), place, peer.is_lasting());
        let connection = Connection::new(stream, peer, address, health.clone(), stay);
        // A closed channel means that the collector is stopping.
        let _ = self.sender.send(Ok(connection)).await;
    }
}

fn why(error: &io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => Refusal::Expired,
        _ => Refusal::Handshake,
    }
}
