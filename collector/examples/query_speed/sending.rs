//! A collector, and hosts that send to it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use buildtrail_collector::{
    ca,
    config::{Config, Tls},
    server::{self, Running},
};
use buildtrail_evidence::{
    batch::{Build, ChainHead, LossTotals, Sealer},
    id::{BootId, HostId},
    key::HostKey,
};
use buildtrail_proto::v1::{
    AggregateRequest, SignedBatch, ingest_client::IngestClient, query_client::QueryClient,
};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::history::{HOSTS, History};

/// Events of a batch.
const BATCH: u64 = 500;
/// Batches that may wait for their acknowledgement.
const WINDOW: u64 = 8;

pub(crate) struct Site {
    directory: PathBuf,
    collector: Running,
    hosts: Vec<Mutex<Sending>>,
}

/// A host's stream.
struct Sending {
    sealer: Sealer,
    /// Events that were handed over.
    number: u64,
    sent: u64,
    acknowledged_to: u64,
    batches: mpsc::Sender<SignedBatch>,
    acknowledged: Streaming<buildtrail_proto::v1::Acknowledgement>,
}

impl Site {
    pub(crate) async fn start(directory: &Path) -> Self {
        let directory = directory.to_owned();
        ca::init(&directory.join("ca"), &["127.0.0.1".into()]).unwrap();
        ca::issue_reader(&directory.join("ca"), "reader", &directory.join("reader")).unwrap();
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_directory: directory.join("data"),
            tls: Tls::in_directory(&directory.join("ca")),
            ..Config::default()
        };
        // Many people ask with one certificate.
        config.access.requests_per_minute = 1_000_000;
        let collector = server::start(config).await.unwrap();
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            let out = directory.join(format!("host-{number}"));
            let id = ca::issue_host(&directory.join("ca"), &format!("host-{number}"), &out).unwrap();
            hosts.push(Mutex::new(Sending::start(&id, &out, collector.address(), number).await));
        }
        Self { directory, collector, hosts }
    }

    pub(crate) async fn reader(&self) -> QueryClient<Channel> {
        let channel = connect(self.collector.address(), &self.directory.join("reader")).await;
        QueryClient::new(channel).max_decoding_message_size(16 << 20)
    }

    /// Sends the whole history and waits until it is indexed.
    pub(crate) async fn fill(&self, history: &History) {
        let sending = self.hosts.iter().zip(0..).map(|(host, number)| async move {
            let mut host = host.lock().await;
            while host.number < history.of_host() {
                host.send(*history, number, BATCH).await;
            }
        });
        futures_join(sending).await;
        let mut reader = self.reader().await;
        while counted(&mut reader).await < history.of_host() * HOSTS {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Sends on at a rate; how many events per second were acknowledged and indexed.
    pub(crate) async fn send_on(&self, history: &History, per_second: u64, seconds: u64) -> f64 {
        let mut reader = self.reader().await;
        let before = counted(&mut reader).await;
        let start = Instant::now();
        let pause = Duration::from_secs_f64(BATCH as f64 * HOSTS as f64 / per_second as f64);
        let sending = self.hosts.iter().zip(0..).map(|(host, number)| async move {
            let mut host = host.lock().await;
            let mut due = tokio::time::interval(pause);
            while start.elapsed() < Duration::from_secs(seconds) {
                due.tick().await;
                host.send(*history, number, BATCH).await;
            }
        });
        futures_join(sending).await;
        let elapsed = start.elapsed().as_secs_f64();
        (counted(&mut reader).await - before) as f64 / elapsed
    }

    /// Bytes of a file or directory of the collector's data.
    pub(crate) fn bytes(&self, name: &str) -> f64 {
        fn size(path: &Path) -> u64 {
            let Ok(about) = fs::metadata(path) else { return 0 };
            if about.is_file() {
                return about.len();
            }
            fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
        }
        size(&self.directory.join("data").join(name)) as f64
    }

    pub(crate) async fn stop(self) {
        drop(self.hosts);
        self.collector.stop().await.unwrap();
    }
}

/// Events that are indexed.
async fn counted(reader: &mut QueryClient<Channel>) -> u64 {
    let answer = reader.aggregate(AggregateRequest::default()).await.unwrap().into_inner();
    answer.rows.first().map_or(0, |row| row.events)
}

async fn futures_join<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

async fn connect(address: SocketAddr, identity: &Path) -> Channel {
    let read = |name: &str| fs::read(identity.join(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")));
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

impl Sending {
    async fn start(id: &str, identity: &Path, address: SocketAddr, number: u64) -> Self {
        let key = HostKey::from_pkcs8_pem(&fs::read_to_string(identity.join("key.pem")).unwrap()).unwrap();
        let sealer = Sealer::new(HostId::parse(id).unwrap(), Build::default(), key, ChainHead::default());
        let (batches, receiver) = mpsc::channel(4);
        let mut request = Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("buildtrail-boot", "b1".parse().unwrap());
        request.metadata_mut().insert("buildtrail-machine", format!("{number:064}").parse().unwrap());
        let mut client = IngestClient::new(connect(address, identity).await);
        let acknowledged = client.stream(request).await.unwrap().into_inner();
        Self { sealer, number: 0, sent: 0, acknowledged_to: 0, batches, acknowledged }
    }

    async fn send(&mut self, history: History, host: u64, count: u64) {
        let events = (self.number..self.number + count).map(|number| history.event(host, number)).collect();
        self.number += count;
        let sealed = self.sealer.seal(&BootId::parse("b1").unwrap(), events, LossTotals::default());
        self.batches.send(sealed.batch).await.unwrap();
        self.sent += 1;
        while self.sent - self.acknowledged_to > WINDOW {
            let acknowledgement = self.acknowledged.message().await.unwrap().unwrap();
            self.acknowledged_to = self.acknowledged_to.max(acknowledgement.number);
        }
    }
}
