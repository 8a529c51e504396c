use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use buildtrail_evidence::{
    batch::{Build, decode_header},
    id::{BootId, HostId},
};
use buildtrail_proto::v1::{
    Acknowledgement, AuditEvent, SignedBatch,
    ingest_server::{Ingest, IngestServer},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, SanType};
use tokio::net::TcpListener;
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    codec::CompressionEncoding,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::config;
use crate::spool::{Identity as SpoolIdentity, Spool};

const PATIENCE: Duration = Duration::from_secs(10);

/// An authority, and files signed by it.
struct Pki {
    folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { folder: tempfile::tempdir().unwrap(), ca };
        fs::write(pki.path("ca.pem"), pki.ca.pem()).unwrap();
        pki.host("host", &["buildtrail://host/host-1"], |_| {});
        pki
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn host(&self, name: &str, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        change(&mut params);
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn settings(&self, name: &str, address: SocketAddr) -> Config {
        let collector = config::Collector {
            addresses: vec![format!("https://{address}")],
            ca: Some(self.path("ca.pem")),
            certificate: Some(self.path(&format!("{name}.pem"))),
            private_key: Some(self.path(&format!("{name}.key"))),
            server_name: Some("collector.test".into()),
            ..config::Collector::default()
        };
        Config { collector, ..Config::default() }
    }

    fn server_tls(&self) -> ServerTlsConfig {
        let params = CertificateParams::new(vec!["collector.test".into()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate.pem(), key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(self.ca.pem()))
    }
}

/// A collector that keeps batch numbers in memory.
#[derive(Clone, Default)]
struct FakeCollector {
    received: Arc<Mutex<Vec<u64>>>,
    refusing: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
}

impl FakeCollector {
    fn received(&self) -> Vec<u64> {
        self.received.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl Ingest for FakeCollector {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Acknowledgement, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<SignedBatch>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut batches = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                let number = decode_header(&batch.header).unwrap().number;
                let answer = if this.refusing.load(Ordering::SeqCst) {
                    Err(Status::failed_precondition("batch does not fit\n\u{1b}[31m"))
                } else {
                    this.received.lock().unwrap().push(number);
                    Ok(Acknowledgement { number, challenge: Vec::new() })
                };
                if !this.silent.load(Ordering::SeqCst) && sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Serves until the returned sender is dropped or used.
async fn serve(
    pki: &Pki,
    collector: &FakeCollector,
    address: SocketAddr,
) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, mut stopped) = watch::channel(false);
    let server = Server::builder()
        .tls_config(pki.server_tls())
        .unwrap()
        .add_service(IngestServer::new(collector.clone()).accept_compressed(CompressionEncoding::Zstd))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(async move {
        tokio::select! {
            result = server => result.unwrap(),
            _ = stopped.changed() => {}
        }
    });
    (address, stop)
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn spool(state: &Path, credentials: &Credentials) -> Spool {
    let identity = SpoolIdentity {
        host_id: credentials.host_id().clone(),
        boot_id: BootId::parse("boot-1").unwrap(),
        key: credentials.host_key().unwrap(),
        build: Build::default(),
    };
    let settings = config::Spool { batch_events: 1, batch_interval_ms: 1, ..Default::default() };
    Spool::start(state, &settings, identity).unwrap()
}

fn start_uplink(spool: &Spool, config: &Config) -> Uplink {
    let credentials = Credentials::load(config).unwrap();
    let (_, proofs) = identity::way(std::sync::mpsc::channel().0);
    Uplink::start(spool.outbox(), config, credentials, &BootId::parse("boot-1").unwrap(), proofs).unwrap()
}

async fn close(spool: Spool) {
    tokio::task::spawn_blocking(move || spool.shutdown(PATIENCE)).await.unwrap();
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    for _ in 0..1000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

/// What was told, line by line.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Told {
    fn subscribe(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(text).count()
    }
}

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'writer> MakeWriter<'writer> for Told {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn batches_arrive_once_and_in_order_and_a_restart_sends_only_new_ones() {
    let (pki, collector, state) = (Pki::new(), FakeCollector::default(), tempfile::tempdir().unwrap());
    let (address, _server) = serve(&pki, &collector, any_port()).await;
    let settings = pki.settings("host", address);
    let credentials = Credentials::load(&settings).unwrap();
    assert_eq!(credentials.host_id(), &HostId::parse("host-1").unwrap());

    for run in 0..2_u64 {
        let spool = spool(state.path(), &credentials);
        let uplink = start_uplink(&spool, &settings);
        for _ in 0..100 {
            spool.handle().push(AuditEvent::default());
        }
        close(spool).await;
        assert!(uplink.shutdown(PATIENCE).await);
        assert_eq!(collector.received(), (1..=(run + 1) * 100).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_everything_arrives_afterwards() {
    let told = Told::default();
    let _guard = told.subscribe();
    let (pki, collector, state) = (Pki::new(), FakeCollector::default(), tempfile::tempdir().unwrap());
    let (address, server) = serve(&pki, &collector, any_port()).await;
    drop(server);
    let settings = pki.settings("host", address);
    let credentials = Credentials::load(&settings).unwrap();
    let spool = spool(state.path(), &credentials);
    let uplink = start_uplink(&spool, &settings);
    for _ in 0..50 {
        spool.handle().push(AuditEvent::default());
    }
    // Long enough for several attempts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(told.count("collector unreachable"), 1);

    let (_, server) = serve(&pki, &collector, address).await;
    eventually("delivery after the outage", || collector.received().len() == 50).await;
    eventually("good news", || told.count("delivered again") == 1).await;

    // Cut while nothing is under way, then in the middle.
    drop(server);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..50 {
        spool.handle().push(AuditEvent::default());
    }
    let (_, _server) = serve(&pki, &collector, address).await;
    eventually("delivery after the second outage", || collector.received().len() >= 100).await;
    close(spool).await;
    assert!(uplink.shutdown(PATIENCE).await);
    let mut numbers = collector.received();
    numbers.dedup();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.last(), Some(&100));
}

#[tokio::test]
async fn a_refusal_is_told_once_and_nothing_is_dropped() {
    let told = Told::default();
    let _guard = told.subscribe();
    let (pki, collector, state) = (Pki::new(), FakeCollector::default(), tempfile::tempdir().unwrap());
    collector.refusing.store(true, Ordering::SeqCst);
    let (address, _server) = serve(&pki, &collector, any_port()).await;
    let settings = pki.settings("host", address);
    let credentials = Credentials::load(&settings).unwrap();
    let first = spool(state.path(), &credentials);
    let uplink = start_uplink(&first, &settings);
    first.handle().push(AuditEvent::default());
    eventually("the refusal", || told.count("refuses this host's events") == 1).await;
    assert_eq!(told.count("\u{1b}"), 0);
    close(first).await;
    assert!(!uplink.shutdown(Duration::from_millis(500)).await);

    collector.refusing.store(false, Ordering::SeqCst);
    let second = spool(state.path(), &credentials);
    let uplink = start_uplink(&second, &settings);
    eventually("delivery after the refusal", || collector.received() == [1]).await;
    close(second).await;
    assert!(uplink.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn shutdown_keeps_to_its_deadline_when_nobody_acknowledges() {
    let (pki, collector, state) = (Pki::new(), FakeCollector::default(), tempfile::tempdir().unwrap());
    collector.silent.store(true, Ordering::SeqCst);
    let (address, _server) = serve(&pki, &collector, any_port()).await;
    let settings = pki.settings("host", address);
    let credentials = Credentials::load(&settings).unwrap();
    let spool = spool(state.path(), &credentials);
    let uplink = start_uplink(&spool, &settings);
    for _ in 0..100 {
        spool.handle().push(AuditEvent::default());
    }
    eventually("a full window", || collector.received().len() == 32).await;
    close(spool).await;
    let begun = Instant::now();
    assert!(!uplink.shutdown(Duration::from_millis(300)).await);
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(collector.received().len(), 32, "no more than the window is in flight");
}

#[tokio::test]
async fn a_collector_of_another_authority_gets_nothing() {
    let told = Told::default();
    let _guard = told.subscribe();
    let (pki, other, state) = (Pki::new(), Pki::new(), tempfile::tempdir().unwrap());
    let collector = FakeCollector::default();
    let (address, _server) = serve(&other, &collector, any_port()).await;
    let settings = pki.settings("host", address);
    let credentials = Credentials::load(&settings).unwrap();
    let spool = spool(state.path(), &credentials);
    let uplink = start_uplink(&spool, &settings);
    spool.handle().push(AuditEvent::default());
    eventually("the reason", || told.count("invalid peer certificate") == 1).await;
    close(spool).await;
    assert!(!uplink.shutdown(Duration::from_millis(300)).await);
    assert!(collector.received().is_empty());
}

#[test]
fn wrong_certificates_are_explained() {
    let pki = Pki::new();
    pki.host("nobody", &[], |_| {});
    pki.host("several", &["buildtrail://host/a", "buildtrail://host/b"], |_| {});
    pki.host("odd", &["buildtrail://host/a%20b"], |_| {});
    let good = pki.settings("host", any_port());
    let with = |change: &dyn Fn(&mut config::Collector)| {
        let mut settings = good.clone();
        change(&mut settings.collector);
        Credentials::load(&settings).unwrap_err().to_string()
    };
    let host = |name: &str| Credentials::load(&pki.settings(name, any_port())).unwrap_err().to_string();
    for (message, expected) in [
        (host("nobody"), "collector.certificate: "),
        (host("nobody"), "needs the subject alternative name URI:buildtrail://host/ID"),
        (host("several"), "the certificate names several hosts"),
        (host("odd"), "the host id is not valid"),
        (with(&|settings| settings.ca = Some(pki.path("none.pem"))), "collector.ca: cannot read "),
        (with(&|settings| settings.ca = Some(pki.path("host.key"))), "holds no certificate"),
        (with(&|settings| settings.private_key = Some(pki.path("host.pem"))), "collector.private_key: "),
        (with(&|settings| settings.private_key = Some(pki.path("nobody.key"))), "belongs to another key"),
    ] {
        assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
    }
}
