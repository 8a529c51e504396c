//! Hosts get certificates, renew them and lose them; copies of a host are told from reboots.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use buildtrail_collector::{ca, config::Config, health::Refusal, server, server::Running};
use buildtrail_evidence::{
    batch::{Build, ChainHead, Sealer},
    id::HostId,
    key::HostKey,
};
use buildtrail_proto::v1::{
    Acknowledgement, AnswerRequest, CancelTokenRequest, CollectorEntry, CreateTokenRequest, EnrolRequest,
    EnrolResponse, EnrolledHost, HostState, ListActsRequest, ListHostsRequest, ListTokensRequest,
    RenewRequest, RevokeHostRequest, SignedBatch, VerifyRequest, administration_client::AdministrationClient,
    collector_entry::Act, enrolment_client::EnrolmentClient, ingest_client::IngestClient,
    query_client::QueryClient,
};
use buildtrail_settings::Span;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use support::{Site, TestHost, connect, connect_without_certificate, greeting_of, send};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

const MACHINE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn reason(status: &Status) -> &str {
    status.metadata().get("buildtrail-reason").map_or("", |reason| reason.to_str().unwrap())
}

async fn admin(site: &Site, address: SocketAddr) -> AdministrationClient<Channel> {
    let out = site.path("admin");
    if !out.exists() {
        ca::issue_admin(&site.path("ca"), "root", &out).unwrap();
    }
    AdministrationClient::new(connect(address, &out).await.unwrap())
}

async fn token(site: &Site, address: SocketAddr, uses: u32, name_pattern: &str) -> String {
    let request = CreateTokenRequest { lifetime_seconds: 60, uses, name_pattern: name_pattern.into() };
    admin(site, address).await.create_token(request).await.unwrap().into_inner().token
}

fn new_key() -> String {
    KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem()
}

async fn enrol(
    site: &Site,
    address: SocketAddr,
    token: &str,
    name: &str,
    key: &str,
) -> Result<EnrolResponse, Status> {
    let key = KeyPair::from_pem(key).unwrap();
    let request = EnrolRequest {
        token: token.to_owned(),
        certificate_request: CertificateParams::default().serialize_request(&key).unwrap().der().to_vec(),
        name: name.to_owned(),
        machine: MACHINE.to_owned(),
    };
    let channel = connect_without_certificate(site, address).await.unwrap();
    EnrolmentClient::new(channel).enrol(request).await.map(tonic::Response::into_inner)
}

/// PEM files of what was issued, as [`support::connect`] reads them.
fn keep(out: &Path, certificate: &[u8], authority: &[u8], key: &str) {
    fs::create_dir_all(out).unwrap();
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
    fs::write(out.join("cert.pem"), pem(certificate)).unwrap();
    fs::write(out.join("ca.pem"), pem(authority)).unwrap();
    fs::write(out.join("key.pem"), key).unwrap();
}

async fn enrolled(site: &Site, address: SocketAddr, name: &str) -> TestHost {
    let key = new_key();
    let token = token(site, address, 1, "").await;
    let answer = enrol(site, address, &token, name, &key).await.unwrap();
    let out = site.path(name);
    keep(&out, &answer.certificate, &answer.authorities[0], &key);
    let id = HostId::parse(&answer.host_id).unwrap();
    let key = HostKey::from_pkcs8_pem(&key).unwrap();
    TestHost { id: answer.host_id, out, sealer: Sealer::new(id, Build::default(), key, ChainHead::default()) }
}

async fn hosts(site: &Site, address: SocketAddr) -> Vec<EnrolledHost> {
    let answer = admin(site, address).await.list_hosts(ListHostsRequest {}).await.unwrap();
    answer.into_inner().hosts
}

/// Waits for entries of these kinds in the collector's log; about which hosts or tokens they are.
async fn acts(site: &Site, address: SocketAddr, kinds: &[&str], count: usize) -> Vec<CollectorEntry> {
    let mut reader = site.reader("auditor", address).await;
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    for _ in 0..500 {
        let request = ListActsRequest { kinds: kinds.clone(), ..ListActsRequest::default() };
        let found = reader.list_acts(request).await.unwrap().into_inner().acts;
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found.into_iter().filter_map(|act| act.entry).collect();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no {count} entries {kinds:?} in time");
}

/// An open stream that says nothing by itself.
struct Stream {
    batches: mpsc::Sender<SignedBatch>,
    replies: Streaming<Acknowledgement>,
    channel: Channel,
}

impl Stream {
    async fn open(host: &TestHost, address: SocketAddr, boot: &str) -> Result<Self, Status> {
        Self::open_on(host, address, boot, MACHINE).await
    }

    async fn open_on(
        host: &TestHost,
        address: SocketAddr,
        boot: &str,
        machine: &str,
    ) -> Result<Self, Status> {
        let channel = connect(address, &host.out).await.unwrap();
        let (batches, receiver) = mpsc::channel(8);
        let request = greeting_of(boot, machine, ReceiverStream::new(receiver));
        let replies = IngestClient::new(channel.clone()).stream(request).await?.into_inner();
        Ok(Self { batches, replies, channel })
    }

    /// Answers challenges until the stream ends; how it ended.
    async fn live(mut self) -> Status {
        loop {
            match self.replies.message().await {
                Ok(Some(reply)) => {
                    if !reply.challenge.is_empty() {
                        let request = AnswerRequest { challenge: reply.challenge };
                        EnrolmentClient::new(self.channel.clone()).answer(request).await.unwrap();
                    }
                }
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_delivers_and_renews() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let mut host = enrolled(&site, collector.address(), "runner-7").await;
    let batches = host.batches(3);
    let (acknowledged, end) = host.send(collector.address(), batches).await;
    end.unwrap();
    assert_eq!(acknowledged, [1, 2, 3]);

    let channel = connect(collector.address(), &host.out).await.unwrap();
    let renewed = EnrolmentClient::new(channel).renew(RenewRequest {}).await.unwrap().into_inner();
    let channel = connect(collector.address(), &host.out).await.unwrap();
    let status = EnrolmentClient::new(channel).renew(RenewRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let key = fs::read_to_string(host.out.join("key.pem")).unwrap();
    let before = fs::read(host.out.join("cert.pem")).unwrap();
    keep(&host.out, &renewed.certificate, &renewed.authorities[0], &key);
    assert_ne!(fs::read(host.out.join("cert.pem")).unwrap(), before);
    let batches = host.batches(1);
    host.send(collector.address(), batches).await.1.unwrap();

    let kinds = ["token.created", "host.enrolled", "certificate.renewed"];
    let noted = acts(&site, collector.address(), &kinds, 3).await;
    let Some(Act::HostEnrolled(noted)) = &noted[1].act else { panic!("{noted:?}") };
    assert_eq!((noted.host_id.as_str(), noted.name.as_str()), (host.id.as_str(), "runner-7"));
    let listed = hosts(&site, collector.address()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].host_id.as_str(), listed[0].name.as_str()), (host.id.as_str(), "runner-7"));
    assert_eq!(listed[0].state(), HostState::Active);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_uses_its_names_and_its_time() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let address = collector.address();
    let pair = token(&site, address, 2, "runner-*").await;
    let (one, two, three) = (new_key(), new_key(), new_key());

    let status = enrol(&site, address, &pair, "laptop", &one).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "name"));
    let first = enrol(&site, address, &pair, "runner-1", &one).await.unwrap();
    // The answer was lost: the same key and token do not use it up again, and the host keeps its id.
    let again = enrol(&site, address, &pair, "runner-1", &one).await.unwrap();
    assert_eq!(again.host_id, first.host_id);
    assert_ne!(again.certificate, first.certificate);
    enrol(&site, address, &pair, "runner-2", &two).await.unwrap();
    let status = enrol(&site, address, &pair, "runner-3", &three).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::PermissionDenied, "token"));

    let other = token(&site, address, 1, "").await;
    // Its id, with another secret.
    let forged = format!("{}{}", &other[..other.len() - 64], "0".repeat(64));
    for wrong in [forged.as_str(), "btjoin_", "", "x"] {
        let status = enrol(&site, address, wrong, "runner-3", &three).await.unwrap_err();
        assert_eq!(reason(&status), "token");
    }
    let mut admin = admin(&site, address).await;
    let tokens = admin.list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
    assert_eq!(tokens.len(), 2);
    let unused = tokens.iter().find(|token| token.uses_left == 1).unwrap();
    admin.cancel_token(CancelTokenRequest { id: unused.id.clone() }).await.unwrap();
    let status = enrol(&site, address, &other, "runner-3", &three).await.unwrap_err();
    assert_eq!(reason(&status), "token");
    assert_eq!(collector.health().refused(Refusal::Token), 7);

    let data = fs::read(site.config().control_file()).unwrap();
    let wal = fs::read(site.config().control_file().with_extension("sqlite-wal")).unwrap_or_default();
    let secret = &other[other.len() - 64..];
    let secret_bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
    for bytes in [secret.as_bytes(), &secret_bytes] {
        assert!(![&data, &wal].iter().any(|file| file.windows(bytes.len()).any(|window| window == bytes)));
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_decide_which_hosts_there_are_and_without_a_certificate_one_can_only_enrol() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let address = collector.address();
    let out = site.path("alice");
    ca::issue_reader(&site.path("ca"), "alice", &out).unwrap();
    let mut alice = AdministrationClient::new(connect(address, &out).await.unwrap());
    let request = CreateTokenRequest { lifetime_seconds: 60, uses: 1, name_pattern: String::new() };
    assert_eq!(alice.create_token(request.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let revoke = RevokeHostRequest { host: "h".into() };
    assert_eq!(alice.revoke_host(revoke).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(alice.list_hosts(ListHostsRequest {}).await.unwrap_err().code(), Code::PermissionDenied);

    let nobody = connect_without_certificate(&site, address).await.unwrap();
    let denied = [
        AdministrationClient::new(nobody.clone()).create_token(request).await.unwrap_err(),
        QueryClient::new(nobody.clone()).verify(VerifyRequest {}).await.unwrap_err(),
        EnrolmentClient::new(nobody.clone()).renew(RenewRequest {}).await.unwrap_err(),
        send(&mut IngestClient::new(nobody), vec![]).await.1.unwrap_err(),
    ];
    let codes = denied.each_ref().map(Status::code);
    let (nobody, no_host) = (Code::Unauthenticated, Code::PermissionDenied);
    assert_eq!(codes, [nobody, nobody, no_host, no_host], "{denied:?}");

    let mut admin = admin(&site, address).await;
    for (lifetime_seconds, uses, pattern) in [(59, 1, ""), (60, 0, ""), (60, 1, "[a"), (3_000_000, 1, "")] {
        let request = CreateTokenRequest { lifetime_seconds, uses, name_pattern: pattern.into() };
        assert_eq!(admin.create_token(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_the_authoritys_key_and_the_web_enrols_nobody_and_lets_in_only_certificates() {
    let site = Site::new();
    let mut config = site.config();
    config.web.enabled = false;
    let collector = server::start(config).await.unwrap();
    let mut admin = admin(&site, collector.address()).await;
    let request = CreateTokenRequest { lifetime_seconds: 60, uses: 1, name_pattern: String::new() };
    let status = admin.create_token(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "off"));
    assert!(status.message().contains("enrol.authority_key"));
    if let Ok(channel) = connect_without_certificate(&site, collector.address()).await {
        assert!(QueryClient::new(channel).verify(VerifyRequest {}).await.is_err());
    }
    // The client can know of the refusal before it is counted.
    for _ in 0..200 {
        if collector.health().refused(Refusal::Handshake) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(collector.health().refused(Refusal::Handshake) > 0);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_cuts_open_streams_and_outlives_restarts() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let (by_token, by_hand) = (enrolled(&site, collector.address(), "token").await, site.host("hand"));
    let mut bystander = enrolled(&site, collector.address(), "bystander").await;
    let streams = [
        Stream::open(&by_token, collector.address(), "boot-1").await.unwrap(),
        Stream::open(&by_hand, collector.address(), "boot-1").await.unwrap(),
    ];
    let mut bystanders_client = bystander.client(collector.address()).await;
    assert!(hosts(&site, collector.address()).await.iter().filter(|host| host.connected).count() == 2);
    let mut admin = admin(&site, collector.address()).await;
    admin.revoke_host(RevokeHostRequest { host: by_token.id.clone() }).await.unwrap();
    admin.revoke_host(RevokeHostRequest { host: "hand".into() }).await.unwrap();
    for stream in streams {
        assert_eq!(reason(&stream.live().await), "revoked");
    }
    send(&mut bystanders_client, bystander.batches(1)).await.1.unwrap();
    acts(&site, collector.address(), &["certificate.revoked"], 2).await;
    collector.stop().await.unwrap();

    let collector = server::start(site.enrolling()).await.unwrap();
    for host in [&by_token, &by_hand] {
        let refused = Stream::open(host, collector.address(), "boot-2").await.err().unwrap();
        assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "revoked"));
        let channel = connect(collector.address(), &host.out).await.unwrap();
        let refused = EnrolmentClient::new(channel).renew(RenewRequest {}).await.unwrap_err();
        assert_eq!(reason(&refused), "revoked");
        let key = fs::read_to_string(host.out.join("key.pem")).unwrap();
        let token = token(&site, collector.address(), 1, "").await;
        let refused = enrol(&site, collector.address(), &token, "again", &key).await.unwrap_err();
        assert_eq!(reason(&refused), "revoked");
    }
    assert_eq!(collector.health().refused(Refusal::Revoked), 6);
    collector.stop().await.unwrap();
}

fn short_lived(site: &Site, grace: u64) -> Config {
    let mut config = site.enrolling();
    config.enrol.certificate_lifetime = Span::from_seconds(3);
    config.enrol.grace = Span::from_seconds(grace);
    config
}

async fn expired(collector: &Running, site: &Site) -> TestHost {
    let mut host = enrolled(site, collector.address(), "sleeper").await;
    let batches = host.batches(1);
    let stream = Stream::open(&host, collector.address(), "b1").await.unwrap();
    stream.batches.send(batches[0].clone()).await.unwrap();
    // A stream does not outlive its certificate.
    assert_eq!(reason(&stream.live().await), "expired");
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_good_for_its_renewal_within_the_grace_and_for_nothing_else() {
    let site = Site::new();
    let collector = server::start(short_lived(&site, 3600)).await.unwrap();
    let mut host = expired(&collector, &site).await;
    let refused = Stream::open(&host, collector.address(), "b1").await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "expired"));
    assert!(collector.health().refused(Refusal::Expired) > 0);

    let channel = connect(collector.address(), &host.out).await.unwrap();
    let renewed = EnrolmentClient::new(channel).renew(RenewRequest {}).await.unwrap().into_inner();
    let key = fs::read_to_string(host.out.join("key.pem")).unwrap();
    keep(&host.out, &renewed.certificate, &renewed.authorities[0], &key);
    let batches = host.batches(1);
    host.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_grace_a_host_must_enrol_again_and_keeps_its_id() {
    let site = Site::new();
    let collector = server::start(short_lived(&site, 0)).await.unwrap();
    let host = expired(&collector, &site).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let channel = connect(collector.address(), &host.out).await.unwrap();
    let refused = EnrolmentClient::new(channel).renew(RenewRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "expired"));
    assert!(refused.message().contains("enrol again"));

    let key = fs::read_to_string(host.out.join("key.pem")).unwrap();
    let token = token(&site, collector.address(), 1, "").await;
    let answer = enrol(&site, collector.address(), &token, "sleeper", &key).await.unwrap();
    assert_eq!(answer.host_id, host.id);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_boots_of_one_host_are_a_clone_and_both_are_refused() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let host = enrolled(&site, collector.address(), "golden").await;
    let original = Stream::open(&host, collector.address(), "boot-1").await.unwrap();
    let original = tokio::spawn(original.live());
    let refused = Stream::open(&host, collector.address(), "boot-2").await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "cloned"));
    assert_eq!(reason(&original.await.unwrap()), "cloned");
    let refused = Stream::open(&host, collector.address(), "boot-1").await.err().unwrap();
    assert_eq!(reason(&refused), "cloned");
    assert_eq!(hosts(&site, collector.address()).await[0].state(), HostState::Cloned);

    let noted = acts(&site, collector.address(), &["host.cloned", "host.must_enrol"], 2).await;
    let Some(Act::HostCloned(noted)) = &noted[0].act else { panic!("{noted:?}") };
    assert_eq!((noted.host_id.as_str(), noted.boot_ids.len()), (host.id.as_str(), 2));
    let key = fs::read_to_string(host.out.join("key.pem")).unwrap();
    let fresh = token(&site, collector.address(), 1, "").await;
    let status = enrol(&site, collector.address(), &fresh, "golden", &key).await.unwrap_err();
    assert_eq!(reason(&status), "cloned");
    let answer = enrol(&site, collector.address(), &fresh, "golden", &new_key()).await.unwrap();
    assert_ne!(answer.host_id, host.id);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_is_no_clone_although_its_old_stream_is_half_open() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let mut host = enrolled(&site, collector.address(), "rebooted").await;
    // Its peer is gone and does not say so: the connection stays open and answers nothing.
    let mut silent = Stream::open(&host, collector.address(), "boot-1").await.unwrap();
    let after = Stream::open(&host, collector.address(), "boot-2").await.unwrap();
    after.batches.send(host.batches(1).remove(0)).await.unwrap();
    let mut after = after;
    assert_eq!(after.replies.message().await.unwrap().unwrap().number, 1);
    let challenge = silent.replies.message().await.unwrap().unwrap().challenge;
    assert!(!challenge.is_empty());
    assert_eq!(reason(&silent.replies.message().await.unwrap_err()), "superseded");
    // Too late, and from a connection that anybody with the key could have.
    let late = EnrolmentClient::new(silent.channel.clone()).answer(AnswerRequest { challenge }).await;
    assert_eq!(late.unwrap_err().code(), Code::NotFound);
    assert_eq!(collector.health().refused(Refusal::Cloned), 0);
    assert_eq!(hosts(&site, collector.address()).await[0].state(), HostState::Active);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reboots_reconnects_and_restarts_of_the_collector_are_no_clones() {
    let site = Site::new();
    let host = site.host("honest");
    for boot in ["boot-1", "boot-1", "boot-2", "boot-3", "boot-3"] {
        let collector = server::start(site.enrolling()).await.unwrap();
        for _ in 0..3 {
            let stream = Stream::open(&host, collector.address(), boot).await.unwrap();
            // The same boot comes back before the collector has noticed that its last stream broke.
            let again = Stream::open(&host, collector.address(), boot).await.unwrap();
            assert_eq!(reason(&stream.live().await), "superseded");
            drop(again);
        }
        assert_eq!(collector.health().refused(Refusal::Cloned), 0);
        collector.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_that_comes_back_after_another_one_is_a_clone() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let host = enrolled(&site, collector.address(), "alternating").await;
    drop(Stream::open(&host, collector.address(), "boot-1").await.unwrap());
    drop(Stream::open(&host, collector.address(), "boot-2").await.unwrap());
    let refused = Stream::open(&host, collector.address(), "boot-1").await.err().unwrap();
    assert_eq!(reason(&refused), "cloned");
    assert!(collector.health().refused(Refusal::Cloned) > 0);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_with_one_machine_id_and_keys_of_their_own_both_stay() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let (mut one, two) = (
        enrolled(&site, collector.address(), "one").await,
        enrolled(&site, collector.address(), "two").await,
    );
    let first = Stream::open(&one, collector.address(), "boot-1").await.unwrap();
    let batches = first.batches.clone();
    let first = tokio::spawn(first.live());
    let _second = Stream::open(&two, collector.address(), "boot-2").await.unwrap();
    batches.send(one.batches(1).remove(0)).await.unwrap();
    assert!(!first.is_finished());
    let noted = acts(&site, collector.address(), &["host.cloned"], 1).await;
    let Some(Act::HostCloned(noted)) = &noted[0].act else { panic!("{noted:?}") };
    assert!(noted.host_id == two.id && noted.what.contains(&one.id), "{noted:?}");
    assert_eq!(collector.health().refused(Refusal::Cloned), 0);
    first.abort();
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_must_say_boot_and_machine() {
    let site = Site::new();
    let collector = site.start().await;
    let host = site.host("h");
    for (boot, machine) in [("", MACHINE), ("b 1", MACHINE), ("b1", "x"), ("b1", "")] {
        let refused = Stream::open_on(&host, collector.address(), boot, machine).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{boot:?} {machine:?}");
    }
    collector.stop().await.unwrap();
}
