//! An agent's enrolment and uplink against a real collector: first certificate, renewal, expiry, clones, proxy, fail-over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buildtrail_agent::{
    config::Config,
    enrol::{Credentials, EnrolError, Enrolment, IdentityStore, Reason, identity},
    spool::{self, Spool},
    uplink::{Change, Uplink, identity::way},
};
use buildtrail_collector::{
    ca,
    config::{Config as CollectorConfig, Tls},
    health::Refusal,
    server::{self, Running},
};
use buildtrail_evidence::{batch::Build, id::BootId};
use buildtrail_proto::v1::{
    AuditEvent, CreateTokenRequest, Heartbeat, HostState, ListHostsRequest, ProcessExec,
    administration_client::AdministrationClient, audit_event::Body,
};
use buildtrail_settings::Span;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, a collector's settings, and hosts' state directories.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        ca::init(&site.path("ca"), &["127.0.0.1".into()]).unwrap();
        ca::issue_admin(&site.path("ca"), "root", &site.path("admin")).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn collector(&self, lifetime: u64, grace: u64, listen: SocketAddr) -> Running {
        let mut config = CollectorConfig {
            listen,
            data_directory: self.path("data"),
            tls: Tls::in_directory(&self.path("ca")),
            ..CollectorConfig::default()
        };
        config.enrol.authority_key = Some(self.path("ca/ca-key.pem"));
        config.enrol.certificate_lifetime = Span::from_seconds(lifetime);
        config.enrol.grace = Span::from_seconds(grace);
        server::start(config).await.unwrap()
    }

    /// An agent's settings.
    fn agent(&self, name: &str, addresses: &[SocketAddr]) -> Config {
        let addresses = addresses.iter().map(|address| format!("https://{address}")).collect();
        let mut config = Config::default();
        config.host.state_directory = self.path(name);
        config.collector.addresses = addresses;
        config.spool.batch_events = 1;
        config.spool.batch_interval_ms = 1;
        config.enrol.name = Some(name.to_owned());
        config
    }

    async fn admin(&self, address: SocketAddr) -> AdministrationClient<Channel> {
        let read = |name: &str| fs::read(self.path("admin").join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        AdministrationClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
    }

    /// What an operator hands to a host: a file with a new token, and the pin.
    async fn ticket(&self, address: SocketAddr) -> Enrolment {
        let request = CreateTokenRequest { lifetime_seconds: 60, uses: 1, name_pattern: String::new() };
        let made = self.admin(address).await.create_token(request).await.unwrap().into_inner();
        let token_file = self.path("token");
        fs::write(&token_file, made.token).unwrap();
        assert_eq!(made.ca_pin, ca::pin(&self.path("ca")).unwrap());
        Enrolment { token_file, ca_pin: made.ca_pin.parse().unwrap(), new_identity: false }
    }

    async fn state_of(&self, address: SocketAddr, name: &str) -> Vec<HostState> {
        let listed = self.admin(address).await.list_hosts(ListHostsRequest {}).await.unwrap();
        let hosts = listed.into_inner().hosts;
        hosts.iter().filter(|host| host.name == name).map(buildtrail_proto::v1::EnrolledHost::state).collect()
    }
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A running spool and uplink.
struct Agent {
    spool: Spool,
    uplink: Uplink,
}

impl Agent {
    fn start(config: &Config, boot: &str) -> Self {
        let credentials = Credentials::load(config).unwrap();
        let boot_id = BootId::parse(boot).unwrap();
        let signer = spool::Identity {
            host_id: credentials.host_id().clone(),
            boot_id: boot_id.clone(),
            key: credentials.host_key().unwrap(),
            build: Build::default(),
        };
        let spool = Spool::start(&config.host.state_directory, &config.spool, signer).unwrap();
        let (_, proofs) = way(std::sync::mpsc::channel().0);
        let uplink = Uplink::start(spool.outbox(), config, credentials, &boot_id, proofs).unwrap();
        Self { spool, uplink }
    }

    fn push(&self, count: usize) {
        for _ in 0..count {
            let body = Some(Body::Heartbeat(Heartbeat::default()));
            self.spool.handle().push(AuditEvent { body, ..AuditEvent::default() });
        }
    }

    async fn stop(self) -> bool {
        let spool = self.spool;
        tokio::task::spawn_blocking(move || spool.shutdown(PATIENCE)).await.unwrap();
        self.uplink.shutdown(PATIENCE).await
    }

    /// Ends without a word, as when the power fails.
    async fn crash(self) {
        let spool = self.spool;
        tokio::task::spawn_blocking(move || spool.shutdown(PATIENCE)).await.unwrap();
        self.uplink.shutdown(Duration::ZERO).await;
    }
}

async fn stored(collector: &Running, events: u64) {
    stored_within(collector, events, Duration::from_secs(30)).await;
}

async fn stored_within(collector: &Running, events: u64, time: Duration) {
    let waiting = async {
        while collector.health().events.get() < events {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = collector.health().events.get();
    assert!(tokio::time::timeout(time, waiting).await.is_ok(), "{found} of {events} events after {time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_by_pin_and_token_and_delivers_with_no_further_settings() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let config = site.agent("runner-7", &[collector.address()]);
    let missing = Credentials::load(&config).unwrap_err().to_string();
    assert!(missing.contains("buildtrail enrol create"), "{missing}");

    let ticket = site.ticket(collector.address()).await;
    let wrong_pin = Enrolment { ca_pin: "ab".repeat(32).parse().unwrap(), ..ticket.clone() };
    let refused = wrong_pin.run(&config).await.unwrap_err().to_string();
    assert!(refused.contains("does not show the authority of --ca-pin"), "{refused}");
    let id = ticket.run(&config).await.unwrap();
    assert_eq!(Credentials::load(&config).unwrap().host_id(), &id);
    // The token is used up; this host's key costs no further use.
    assert_eq!(ticket.run(&config).await.unwrap(), id);
    let other = ticket.run(&site.agent("runner-8", &[collector.address()])).await.unwrap_err();
    assert!(matches!(other, EnrolError::Refused(_)) && other.to_string().contains("used up"), "{other}");
    assert_eq!(collector.health().refused(Refusal::Token), 1);

    let agent = Agent::start(&config, "boot-1");
    agent.push(20);
    assert!(agent.stop().await);
    assert_eq!(collector.health().events.get(), 20);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_renews_its_certificate_again_and_again() {
    let site = Site::new();
    let collector = site.collector(6, 3600, any_port()).await;
    let config = site.agent("renewing", &[collector.address()]);
    let id = site.ticket(collector.address()).await.run(&config).await.unwrap();
    let store = IdentityStore::new(&config.host.state_directory);
    let mut identities = vec![store.load().unwrap()];
    let agent = Agent::start(&config, "boot-1");
    while identities.len() < 4 {
        agent.push(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let identity = store.load().unwrap();
        if identities.last() != Some(&identity) {
            identities.push(identity);
        }
    }
    assert!(agent.stop().await);
    assert_eq!(Credentials::load(&config).unwrap().host_id(), &id);
    assert_eq!(collector.health().refused(Refusal::Expired), 0);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_long_outage_a_host_renews_within_the_grace_and_delivers_what_it_kept() {
    let site = Site::new();
    let collector = site.collector(3, 3600, any_port()).await;
    let config = site.agent("sleeper", &[collector.address()]);
    site.ticket(collector.address()).await.run(&config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let agent = Agent::start(&config, "boot-1");
    agent.push(10);
    stored(&collector, 10).await;
    assert!(agent.stop().await);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_grace_a_host_keeps_its_events_until_it_is_enrolled_again_with_the_same_id() {
    let site = Site::new();
    let collector = site.collector(3, 0, any_port()).await;
    let address = collector.address();
    let config = site.agent("sleeper", &[address]);
    let id = site.ticket(address).await.run(&config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(4100)).await;
    let mut agent = Agent::start(&config, "boot-1");
    agent.push(10);
    assert_eq!(agent.uplink.change().await, Change::Refused(Reason::Expired));
    assert!(Reason::Expired.advice().contains("run `buildtrail-agent enrol`"));
    assert_eq!(collector.health().events.get(), 0);
    collector.stop().await.unwrap();

    let collector = site.collector(3600, 0, address).await;
    assert_eq!(site.ticket(address).await.run(&config).await.unwrap(), id);
    stored(&collector, 10).await;
    assert!(agent.stop().await);
    collector.stop().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_disk_is_found_out_and_both_hosts_enrol_anew() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let address = collector.address();
    let golden = site.agent("golden", &[address]);
    let first_id = site.ticket(address).await.run(&golden).await.unwrap();
    let mut copied = site.agent("copy", &[address]);
    copy(&golden.host.state_directory, &copied.host.state_directory);

    let mut original = Agent::start(&golden, "boot-1");
    original.push(1);
    stored(&collector, 1).await;
    let mut twin = Agent::start(&copied, "boot-2");
    twin.push(1);
    assert_eq!(twin.uplink.change().await, Change::Refused(Reason::Cloned));
    assert_eq!(original.uplink.change().await, Change::Refused(Reason::Cloned));
    assert_eq!(site.state_of(address, "golden").await, [HostState::Cloned]);

    // Without a token nothing happens by itself; with one the copy becomes a host of its own.
    assert!(!identity::replaced(&copied, Change::Refused(Reason::Cloned)).await);
    let ticket = site.ticket(address).await;
    copied.enrol.token_file = Some(ticket.token_file);
    copied.enrol.ca_pin = Some(ticket.ca_pin);
    assert!(identity::replaced(&copied, Change::Refused(Reason::Cloned)).await);
    twin.crash().await;
    original.crash().await;
    let second_id = Credentials::load(&copied).unwrap().host_id().clone();
    assert_ne!(second_id, first_id);
    let twin = Agent::start(&copied, "boot-2");
    twin.push(3);
    assert!(twin.stop().await);
    assert_eq!(site.state_of(address, "copy").await, [HostState::Active]);
    assert!(!identity::replaced(&copied, Change::Refused(Reason::Revoked)).await);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_switched_off_hard_comes_back_as_itself() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let config = site.agent("rebooting", &[collector.address()]);
    site.ticket(collector.address()).await.run(&config).await.unwrap();
    for boot in 1..=3_u64 {
        let agent = Agent::start(&config, &format!("boot-{boot}"));
        agent.push(5);
        stored(&collector, 5 * boot).await;
        agent.crash().await;
    }
    assert_eq!(collector.health().refused(Refusal::Cloned), 0);
    assert_eq!(site.state_of(collector.address(), "rebooting").await, [HostState::Active]);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_from_another_machine_is_not_used() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let mut config = site.agent("imaged", &[collector.address()]);
    let first_id = site.ticket(collector.address()).await.run(&config).await.unwrap();
    let path = IdentityStore::new(&config.host.state_directory).path();
    let text = fs::read_to_string(&path).unwrap();
    let (line, rest) = text.split_once('\n').unwrap();
    assert!(line.starts_with("machine: "));
    fs::write(&path, format!("machine: {}\n{rest}", "0".repeat(64))).unwrap();

    let refused = identity::obtain(&config).await.unwrap_err().to_string();
    assert!(refused.contains("made on another machine") && refused.contains("--new-identity"), "{refused}");
    let ticket = site.ticket(collector.address()).await;
    config.enrol.token_file = Some(ticket.token_file);
    config.enrol.ca_pin = Some(ticket.ca_pin);
    let credentials = identity::obtain(&config).await.unwrap();
    assert_ne!(credentials.host_id(), &first_id);
    collector.stop().await.unwrap();
}

/// An HTTP proxy for one destination and one password; counts what passes from the client.
struct Proxy {
    address: SocketAddr,
    passed: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(credentials: &'static str) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, asked) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (count, heads) = (passed.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(tunnel(client, credentials, count.clone(), heads.clone()));
            }
        });
        Self { address, passed, asked }
    }
}

async fn tunnel(
    mut client: TcpStream,
    credentials: &str,
    passed: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    asked.lock().unwrap().push(head.clone());
    if !head.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n")) {
        return client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
    }
    let destination = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap();
    let mut server = TcpStream::connect(destination).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n").await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            passed.fetch_add(count as u64, Ordering::Relaxed);
            to_server.write_all(&buffer[..count]).await?;
        }
    };
    let (up, down) = tokio::join!(up, tokio::io::copy(&mut from_server, &mut to_client));
    up.and(down.map(|_| ()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_passed_with_credentials_and_batches_are_compressed_on_the_way() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let proxy = Proxy::start("Y2k6RkFLRS1wYXNzd29yZA==").await;
    let mut config = site.agent("behind-a-proxy", &[collector.address()]);
    config.collector.proxy = Some(format!("http://{}", proxy.address));
    config.spool.batch_events = 100;
    config.spool.batch_interval_ms = 1000;
    let ticket = site.ticket(collector.address()).await;
    let refused = ticket.run(&config).await.unwrap_err();
    assert!(refused.may_pass() && refused.to_string().contains("407"), "{refused}");

    let credentials = site.path("proxy-credentials");
    fs::write(&credentials, "ci:FAKE-password\n").unwrap();
    config.collector.proxy_credentials = Some(credentials);
    ticket.run(&config).await.unwrap();
    let before = proxy.passed.load(Ordering::Relaxed);
    let agent = Agent::start(&config, "boot-1");
    let text = "/usr/bin/compressible ".repeat(100);
    for _ in 0..300 {
        let exec = ProcessExec { filename: text.clone(), ..ProcessExec::default() };
        agent
            .spool
            .handle()
            .push(AuditEvent { body: Some(Body::ProcessExec(exec)), ..AuditEvent::default() });
    }
    assert!(agent.stop().await);
    assert_eq!(collector.health().events.get(), 300);
    let sent = proxy.passed.load(Ordering::Relaxed) - before;
    assert!(sent < 300 * text.len() as u64 / 10, "{sent} bytes for {} of text", 300 * text.len());
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|head| head.starts_with(&format!("CONNECT {} ", collector.address()))));
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_is_tried_when_one_does_not_answer_and_the_first_one_again_later() {
    let site = Site::new();
    let dead = TcpListener::bind(any_port()).await.unwrap();
    let dead_address = dead.local_addr().unwrap();
    drop(dead);
    let collector = site.collector(3600, 3600, any_port()).await;
    let config = site.agent("roaming", &[dead_address, collector.address()]);
    site.ticket(collector.address()).await.run(&config).await.unwrap();
    let agent = Agent::start(&config, "boot-1");
    agent.push(5);
    stored(&collector, 5).await;
    collector.stop().await.unwrap();

    let collector = site.collector(3600, 3600, dead_address).await;
    agent.push(5);
    stored(&collector, 5).await;
    assert!(agent.stop().await);
    collector.stop().await.unwrap();
}

/// Passes everything on until it is told to fall silent; later connections pass again.
async fn relay(to: SocketAddr) -> (SocketAddr, watch::Sender<u32>) {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silence, silenced) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut silenced = silenced.clone();
            silenced.mark_unchanged();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    // Both connections stay open, as when a firewall forgets them.
                    _ = silenced.changed() => std::future::pending().await,
                }
            });
        }
    });
    (address, silence)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_dead_without_a_word_is_noticed_and_replaced() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let (address, silence) = relay(collector.address()).await;
    let config = site.agent("behind-a-firewall", &[address]);
    site.ticket(collector.address()).await.run(&config).await.unwrap();
    let agent = Agent::start(&config, "boot-1");
    agent.push(5);
    stored(&collector, 5).await;
    silence.send_modify(|times| *times += 1);
    agent.push(5);
    // Two probing times and a pause.
    stored_within(&collector, 10, Duration::from_mins(2)).await;
    assert!(agent.stop().await);
    assert_eq!(collector.health().refused(Refusal::Cloned), 0);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_over_a_connection_with_a_cap() {
    let site = Site::new();
    let collector = site.collector(3600, 3600, any_port()).await;
    let mut config = site.agent("capped", &[collector.address()]);
    config.collector.max_bytes_per_second = 32 * 1024;
    site.ticket(collector.address()).await.run(&config).await.unwrap();
    let agent = Agent::start(&config, "boot-1");
    agent.push(100);
    assert!(agent.stop().await);
    assert_eq!(collector.health().events.get(), 100);
    collector.stop().await.unwrap();
}
