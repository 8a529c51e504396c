//! A collector with its authority in a temporary directory, and hosts and readers to talk to it.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_collector::{
    ca,
    config::{Config, Tls},
    server::{self, Running},
};
use buildtrail_evidence::{
    batch::{Build, ChainHead, LossTotals, Sealed, Sealer},
    id::{BootId, HostId},
    key::HostKey,
};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        AuditEvent, Heartbeat, Job, JobFinished, ProcessExec, Search, SearchEventsRequest, SecretAccess,
        SignedBatch, Step, audit_event::Body, ingest_client::IngestClient, query_client::QueryClient,
    },
};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// 2026-11-22 09:00:00 UTC.
pub(crate) const NINE: i128 = 1_795_338_000_000_000_000;

pub(crate) struct Site {
    pub(crate) directory: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        ca::init(&directory.path().join("ca"), &["127.0.0.1".into()]).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_directory: self.path("data"),
            tls: Tls::in_directory(&self.path("ca")),
            ..Config::default()
        }
    }

    /// A collector at which hosts can enrol.
    pub(crate) fn enrolling(&self) -> Config {
        let mut config = self.config();
        config.enrol.authority_key = Some(self.path("ca/ca-key.pem"));
        config
    }

    pub(crate) async fn start(&self) -> Running {
        server::start(self.config()).await.unwrap()
    }

    pub(crate) fn host(&self, name: &str) -> TestHost {
        let out = self.path(name);
        let id = ca::issue_host(&self.path("ca"), name, &out).unwrap();
        let key = HostKey::from_pkcs8_pem(&fs::read_to_string(out.join("key.pem")).unwrap()).unwrap();
        let sealer = Sealer::new(HostId::parse(&id).unwrap(), Build::default(), key, ChainHead::default());
        TestHost { id, out, sealer }
    }

    pub(crate) async fn reader(&self, name: &str, address: SocketAddr) -> QueryClient<Channel> {
        let out = self.path(name);
        if !out.exists() {
            ca::issue_reader(&self.path("ca"), name, &out).unwrap();
        }
        QueryClient::new(connect(address, &out).await.unwrap())
    }
}

/// A channel of somebody who has no certificate.
pub(crate) async fn connect_without_certificate(
    site: &Site,
    address: SocketAddr,
) -> Result<Channel, tonic::transport::Error> {
    let ca = fs::read(site.path("ca/ca.pem")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls)?.connect_timeout(Duration::from_secs(5)).connect().await
}

/// A channel with the identity in `directory`.
pub(crate) async fn connect(
    address: SocketAddr,
    directory: &Path,
) -> Result<Channel, tonic::transport::Error> {
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read("ca.pem")))
        .identity(Identity::from_pem(read("cert.pem"), read("key.pem")));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls)?.connect_timeout(Duration::from_secs(5)).connect().await
}

pub(crate) struct TestHost {
    pub(crate) id: String,
    pub(crate) out: PathBuf,
    pub(crate) sealer: Sealer,
}

impl TestHost {
    pub(crate) fn seal(&mut self, events: Vec<AuditEvent>) -> Sealed {
        self.sealer.seal(&BootId::parse("b1").unwrap(), events, LossTotals::default())
    }

    /// `count` batches of one heartbeat each.
    pub(crate) fn batches(&mut self, count: usize) -> Vec<SignedBatch> {
        (0..count).map(|_| self.seal(vec![heartbeat(self.sealer.head().number)]).batch).collect()
    }

    pub(crate) async fn client(&self, address: SocketAddr) -> IngestClient<Channel> {
        IngestClient::new(connect(address, &self.out).await.unwrap())
    }

    /// Streams the batches and returns the acknowledged numbers, and how the stream ended.
    pub(crate) async fn send(
        &self,
        address: SocketAddr,
        batches: Vec<SignedBatch>,
    ) -> (Vec<u64>, Result<(), Status>) {
        send(&mut self.client(address).await, batches).await
    }
}

pub(crate) async fn send(
    client: &mut IngestClient<Channel>,
    batches: Vec<SignedBatch>,
) -> (Vec<u64>, Result<(), Status>) {
    let mut acknowledged = Vec::new();
    let mut stream = match client.stream(greeting(tokio_stream::iter(batches))).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (acknowledged, Err(status)),
    };
    loop {
        match stream.message().await {
            Ok(Some(acknowledgement)) => acknowledged.push(acknowledgement.number),
            Ok(None) => return (acknowledged, Ok(())),
            Err(status) => return (acknowledged, Err(status)),
        }
    }
}

/// A stream of boot `b1`, as [`TestHost::seal`] seals.
pub(crate) fn greeting<S>(batches: S) -> Request<S> {
    greeting_of("b1", &"0".repeat(64), batches)
}

pub(crate) fn greeting_of<S>(boot: &str, machine: &str, batches: S) -> Request<S> {
    let mut request = Request::new(batches);
    request.metadata_mut().insert("buildtrail-boot", boot.parse().unwrap());
    request.metadata_mut().insert("buildtrail-machine", machine.parse().unwrap());
    request
}

pub(crate) fn heartbeat(second: u64) -> AuditEvent {
    at(second, Body::Heartbeat(Heartbeat::default()))
}

pub(crate) fn at(second: u64, body: Body) -> AuditEvent {
    let time = Some(timestamp_from_unix_nanos(NINE + i128::from(second) * 1_000_000_000));
    AuditEvent { time, body: Some(body), ..AuditEvent::default() }
}

pub(crate) fn secret(second: u64) -> AuditEvent {
    at(second, Body::SecretAccess(SecretAccess { secret: "npm token".into(), ..SecretAccess::default() }))
}

pub(crate) fn exec(second: u64) -> AuditEvent {
    at(second, Body::ProcessExec(ProcessExec { filename: "/bin/true".into(), ..ProcessExec::default() }))
}

pub(crate) fn finished(second: u64) -> AuditEvent {
    at(second, Body::JobFinished(JobFinished::default()))
}

/// The event, in a job of `acme/<repository>` and, unless 0, a step.
pub(crate) fn in_job(job_id: &str, repository: &str, step: u32, event: AuditEvent) -> AuditEvent {
    let job = Job { job_id: job_id.into(), repository: format!("acme/{repository}"), ..Job::default() };
    let step = (step > 0).then(|| Step { id: format!("__run_{step}"), index: step, ..Step::default() });
    AuditEvent { job: Some(job), step, ..event }
}

/// A search in the words of the language.
pub(crate) fn search(text: &str) -> Search {
    buildtrail_query::parse(text).unwrap()
}

/// The events that a search finds on its first page, oldest first.
pub(crate) async fn found(reader: &mut QueryClient<Channel>, text: &str) -> Vec<AuditEvent> {
    let request =
        SearchEventsRequest { search: Some(search(text)), limit: 10_000, ..SearchEventsRequest::default() };
    let mut events = reader.search_events(request).await.unwrap().into_inner().events;
    events.reverse();
    events
}

/// Waits until the collector has indexed this many events.
pub(crate) async fn wait_for_events(reader: &mut QueryClient<Channel>, count: usize) -> Vec<AuditEvent> {
    for _ in 0..500 {
        let events = found(reader, "").await;
        if events.len() >= count {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{count} events were not indexed in time");
}
