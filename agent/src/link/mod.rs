//! The way to the collector: addresses, HTTP proxy, TLS 1.3, bandwidth.
//!
//! In: the settings of `[collector]` and whom to trust. Out: a gRPC channel over one connection. Used by enrolment, which
//! knows the collector by its authority's pin, and by the uplink, where both sides show certificates.
//! Must never speak without TLS, or log what the proxy's credentials are.

mod pin;
mod proxy;
mod wire;

use std::{
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::ServerCertVerifier,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::TLS13,
};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::Service,
    transport::{Channel, Endpoint, Uri},
};

pub use self::pin::CaPin;
pub(crate) use self::wire::Meter;
use self::{proxy::Proxy, wire::Wire};
use crate::{config, error::with_causes};

/// Most time to reach the collector and agree on encryption.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes that may wait in the kernel and were not sent: probes wait behind them on slow networks.
const UNSENT_BYTES: u32 = 32 * 1024;

/// Bytes that may wait to be encrypted, for the same reason.
const UNENCRYPTED_BYTES: usize = 16 * 1024;

/// The way to the collector cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// An address is none.
    #[error("collector.addresses: {0:?} cannot be used: expected https://HOST:PORT")]
    Address(String),
    /// The proxy's settings.
    #[error("collector.{setting}: {problem}")]
    Proxy {
        /// Key in `[collector]`.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The TLS library refused the certificates.
    #[error("the certificates cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
}

/// Whom to trust, and what to show.
#[derive(Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Both sides show certificates.
    pub(crate) fn mutual(
        authorities: &[CertificateDer<'static>],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, LinkError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self::over_http2(config))
    }

    /// The collector is known by its authority's pin; this side has nothing to show yet.
    pub(crate) fn pinned(pin: CaPin) -> Result<Self, LinkError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = Arc::new(pin::Pinned::new(pin, provider.clone()));
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self::over_http2(config))
    }

    fn over_http2(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Arc::new(config))
    }
}

/// One of the collector's addresses.
#[derive(Debug, Clone)]
struct Address {
    text: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// All ways to the collector, in the order in which they are tried.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    addresses: Vec<Address>,
    proxy: Option<Proxy>,
    bytes_per_second: Option<u64>,
}

impl Route {
    pub(crate) fn new(settings: &config::Collector) -> Result<Self, LinkError> {
        let address = |text: &String| {
            parse(text, settings.server_name.as_deref()).ok_or_else(|| LinkError::Address(text.clone()))
        };
        let proxy = settings.proxy.as_ref().map(|url| Proxy::new(url, settings.proxy_credentials.as_deref()));
        Ok(Self {
            addresses: settings.addresses.iter().map(address).collect::<Result<_, _>>()?,
            proxy: proxy.transpose()?,
            bytes_per_second: (settings.max_bytes_per_second > 0).then_some(settings.max_bytes_per_second),
        })
    }

    /// Connects to the first address that answers; returns it too.
    pub(crate) async fn connect(&self, trust: &Trust, meter: &Arc<Meter>) -> Result<Link, LinkError> {
        let mut failures = Vec::new();
        for address in &self.addresses {
            match self.connect_to(address, trust, meter).await {
                Ok(channel) => return Ok(Link { channel, address: address.text.clone() }),
                Err(failure) => failures.push(format!("{}: {failure}", address.text)),
            }
        }
        Err(LinkError::Unreachable(failures.join("; ")))
    }

    async fn connect_to(
        &self,
        address: &Address,
        trust: &Trust,
        meter: &Arc<Meter>,
    ) -> Result<Channel, String> {
        let authority = address.text.trim_start_matches("https://");
        let uri = |scheme: &str| format!("{scheme}://{authority}").parse::<Uri>();
        // The encryption is the connector's; requests say https all the same.
        let (Ok(plain), Ok(origin)) = (uri("http"), uri("https")) else {
            return Err("not an address".to_owned());
        };
        let endpoint = Endpoint::from(plain)
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let connector = Connector {
            address: address.clone(),
            proxy: self.proxy.clone(),
            bytes_per_second: self.bytes_per_second,
            trust: trust.clone(),
            meter: meter.clone(),
        };
        endpoint.connect_with_connector(connector).await.map_err(|error| with_causes(&error))
    }
}

/// A connection.
pub(crate) struct Link {
    pub(crate) channel: Channel,
    /// Which address answered.
    pub(crate) address: String,
}

fn parse(text: &str, server_name: Option<&str>) -> Option<Address> {
    let uri: Uri = text.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(server_name.unwrap_or(&host).to_owned()).ok()?;
    let https = uri.scheme_str() == Some("https");
    https.then(|| Address {
        text: text.trim_end_matches('/').to_owned(),
        host,
        port: uri.port_u16().unwrap_or(443),
        name,
    })
}

/// Opens connections for a [`Channel`].
struct Connector {
    address: Address,
    proxy: Option<Proxy>,
    bytes_per_second: Option<u64>,
    trust: Trust,
    meter: Arc<Meter>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, proxy, bytes_per_second, trust, meter } = self;
        let (address, proxy, trust) = (address.clone(), proxy.clone(), trust.clone());
        let (bytes_per_second, meter) = (*bytes_per_second, meter.clone());
        Box::pin(async move {
            let stream = match &proxy {
                Some(proxy) => proxy.open(&address.host, address.port).await?,
                None => open(&address.host, address.port).await?,
            };
            let wire = Wire::new(stream, bytes_per_second, meter);
            let mut secured = TlsConnector::from(trust.0).connect(address.name, wire).await?;
            secured.get_mut().1.set_buffer_limit(Some(UNENCRYPTED_BYTES));
            Ok(TokioIo::new(secured))
        })
    }
}

async fn open(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(stream)
}

/// A small file that is not for everyone's eyes.
fn read_secret(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, 64 * 1024), &mut text)?;
    Ok(text)
}

/// For messages about a file of the settings.
fn unreadable(setting: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> LinkError {
    move |error| LinkError::Proxy { setting, problem: format!("cannot read {}: {error}", path.display()) }
}
