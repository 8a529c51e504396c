//! Peers that break the rules: refused with a reason, counted, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, time::Duration};

use buildtrail_collector::{ca, health::Refusal, server, server::Running};
use buildtrail_evidence::{
    batch::{Build, ChainHead, Sealer},
    id::HostId,
    key::HostKey,
};
use buildtrail_proto::v1::{
    Condition, GetJobRequest, ListJobsRequest, Search, SearchEventsRequest, SignedBatch, TailRequest,
    VerifyRequest, ingest_client::IngestClient, query_client::QueryClient,
};
use support::{Site, connect, send};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Code,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

/// Waits for at least `count` refusals: a client may try again by itself.
async fn refused(collector: &Running, why: Refusal, count: u64) {
    for _ in 0..250 {
        if collector.health().refused(why) >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(collector.health().refused(why) >= count, "{why:?}: {}", collector.health().refused(why));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_our_authority_nobody_gets_in() {
    let (site, foreign) = (Site::new(), Site::new());
    let collector = site.start().await;
    let address = collector.address();
    let mut host = site.host("good");
    let mut client = host.client(address).await;
    send(&mut client, host.batches(2)).await.1.unwrap();

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"), "plaintext was answered");
    refused(&collector, Refusal::Handshake, 1).await;

    let mut intruder = foreign.host("intruder");
    fs::copy(site.path("ca/ca.pem"), intruder.out.join("ca.pem")).unwrap();
    if let Ok(channel) = connect(address, &intruder.out).await {
        let mut client = IngestClient::new(channel);
        assert!(send(&mut client, intruder.batches(1)).await.1.is_err());
    }
    refused(&collector, Refusal::Handshake, 2).await;

    // Browsers come without a certificate, so the connection stands; nothing can be asked on it.
    let nobody = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(site.path("ca/ca.pem")).unwrap()));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.tls_config(nobody).unwrap().connect().await.unwrap();
    let refusal = QueryClient::new(channel).verify(VerifyRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");

    let (acknowledged, end) = send(&mut client, host.batches(2)).await;
    end.unwrap();
    assert_eq!(acknowledged, [3, 4]);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_only_do_its_own() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let as_reader = connect(collector.address(), &host.out).await.unwrap();
    let mut as_reader = QueryClient::new(as_reader);
    let denied = [
        as_reader.list_jobs(ListJobsRequest::default()).await.unwrap_err(),
        as_reader.search_events(SearchEventsRequest::default()).await.unwrap_err(),
        as_reader.tail(TailRequest::default()).await.unwrap_err(),
        as_reader.get_job(GetJobRequest { job_id: "0".into() }).await.unwrap_err(),
        as_reader.verify(VerifyRequest {}).await.unwrap_err(),
    ];
    assert!(denied.iter().all(|status| status.code() == Code::PermissionDenied));

    let out = site.path("alice");
    ca::issue_reader(&site.path("ca"), "alice", &out).unwrap();
    let mut as_host = IngestClient::new(connect(collector.address(), &out).await.unwrap());
    let (_, end) = send(&mut as_host, host.batches(1)).await;
    assert_eq!(end.unwrap_err().code(), Code::PermissionDenied);
    refused(&collector, Refusal::Identity, 6).await;
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_cannot_speak_for_another() {
    let site = Site::new();
    let collector = site.start().await;
    let (mut victim, mut thief) = (site.host("victim"), site.host("thief"));
    // The victim's own signed batch, over the thief's connection.
    let (_, end) = thief.send(collector.address(), victim.batches(1)).await;
    assert_eq!(end.unwrap_err().code(), Code::InvalidArgument);
    // The victim's host id, signed with the thief's key.
    let key = HostKey::from_pkcs8_pem(&fs::read_to_string(thief.out.join("key.pem")).unwrap()).unwrap();
    let id = HostId::parse(&victim.id).unwrap();
    thief.sealer = Sealer::new(id, Build::default(), key, ChainHead::default());
    let batches = thief.batches(1);
    let (_, end) = thief.send(collector.address(), batches).await;
    assert_eq!(end.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(collector.health().batches.get(), 0);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_oversized_batches_are_refused_while_others_go_on() {
    let site = Site::new();
    let mut config = site.config();
    config.limits.max_batch_bytes = 64 << 10;
    let collector = server::start(config).await.unwrap();
    let (mut good, mut bad) = (site.host("good"), site.host("bad"));
    let mut client = good.client(collector.address()).await;

    let honest = bad.batches(1).remove(0);
    let flip = |change: fn(&mut SignedBatch)| {
        let mut batch = honest.clone();
        change(&mut batch);
        batch
    };
    let garbage = [
        SignedBatch::default(),
        SignedBatch {
            header: vec![0xff; 100],
            signature: vec![1; 64],
            body: vec![2; 100],
            lost_before: vec![3; 64],
        },
        flip(|batch| batch.header[5] ^= 1),
        flip(|batch| batch.signature[5] ^= 1),
        flip(|batch| batch.body[5] ^= 1),
        flip(|batch| batch.body.clear()),
    ];
    let count = garbage.len() as u64;
    for batch in garbage {
        let (acknowledged, end) = bad.send(collector.address(), vec![batch]).await;
        assert!(acknowledged.is_empty());
        assert_eq!(end.unwrap_err().code(), Code::InvalidArgument);
        send(&mut client, good.batches(1)).await.1.unwrap();
    }
    refused(&collector, Refusal::Garbage, count).await;

    let oversized = flip(|batch| batch.body = vec![0; 70 << 10]);
    assert!(bad.send(collector.address(), vec![oversized]).await.1.is_err());
    refused(&collector, Refusal::Oversized, 1).await;

    send(&mut client, good.batches(1)).await.1.unwrap();
    bad.send(collector.address(), vec![honest]).await.1.unwrap();
    assert_eq!(collector.health().batches.get(), count + 2);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_and_places_come_back() {
    let site = Site::new();
    let mut config = site.config();
    config.limits.max_connections = 2;
    let collector = server::start(config).await.unwrap();
    let mut host = site.host("h");
    let mut client = host.client(collector.address()).await;
    send(&mut client, host.batches(1)).await.1.unwrap();
    let mut alice = site.reader("alice", collector.address()).await;
    alice.verify(VerifyRequest {}).await.unwrap();

    let out = site.path("bob");
    ca::issue_reader(&site.path("ca"), "bob", &out).unwrap();
    if let Ok(channel) = connect(collector.address(), &out).await {
        assert!(QueryClient::new(channel).verify(VerifyRequest {}).await.is_err());
    }
    refused(&collector, Refusal::Busy, 1).await;
    send(&mut client, host.batches(1)).await.1.unwrap();
    drop(alice);
    for attempt in 0.. {
        let connected = connect(collector.address(), &out).await;
        if let Ok(channel) = connected
            && QueryClient::new(channel).verify(VerifyRequest {}).await.is_ok()
        {
            break;
        }
        assert!(attempt < 250, "the place did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_sense_are_explained() {
    let site = Site::new();
    let collector = site.start().await;
    let mut reader = site.reader("alice", collector.address()).await;
    let status = reader.get_job(GetJobRequest { job_id: "abc".into() }).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("no such job")), (Code::NotFound, true));
    let status = reader.get_job(GetJobRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let kind = Condition { field: "kind".into(), values: vec!["nonsense".into()], ..Condition::default() };
    let search = Some(Search { r#where: vec![kind], ..Search::default() });
    let request = SearchEventsRequest { search, ..SearchEventsRequest::default() };
    let status = reader.search_events(request).await.unwrap_err();
    assert!(status.message().contains("secret.access"), "{status}");
    collector.stop().await.unwrap();
}
