//! Delivery: what is acknowledged is kept, once, in order, over restarts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;

use buildtrail_collector::{
    health::Refusal,
    server::{self, OnLoss},
};
use buildtrail_evidence::{batch::ChainHead, verify};
use buildtrail_proto::v1::VerifyRequest;
use support::{Site, greeting, heartbeat, secret, send, wait_for_events};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_acknowledged_in_order_and_can_be_read_and_verified() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("runner-7");
    let batches = host.batches(100);
    let (acknowledged, end) = host.send(collector.address(), batches).await;
    end.unwrap();
    assert_eq!(acknowledged, (1..=100).collect::<Vec<_>>());

    let mut reader = site.reader("alice", collector.address()).await;
    let events = wait_for_events(&mut reader, 100).await;
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let verified = reader.verify(VerifyRequest {}).await.unwrap().into_inner();
    assert_eq!(verified.problems, Vec::<String>::new());
    let statement = "runner-7: 2026-11-22 09:00:00–09:01:39 UTC: complete, 100 events, 0 lost";
    assert_eq!(verified.hosts[0].statement, statement);
    collector.stop().await.unwrap();
    let offline = verify::verify(&site.config().log_directory()).unwrap();
    assert_eq!(offline.to_response(), verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_acknowledged_again_and_stored_once_however_old() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let batches = host.batches(300);
    host.send(collector.address(), batches.clone()).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for_events(&mut reader, 300).await;
    let (acknowledged, end) = host.send(collector.address(), batches).await;
    end.unwrap();
    assert_eq!(acknowledged.len(), 300);
    assert_eq!(collector.health().duplicates.get(), 300);
    assert_eq!(wait_for_events(&mut reader, 300).await.len(), 300);
    collector.stop().await.unwrap();
    assert_eq!(verify::verify(&site.config().log_directory()).unwrap().batches, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_collector_goes_on_and_a_deleted_index_is_rebuilt() {
    let site = Site::new();
    let mut host = site.host("h");
    for round in 0..3_u64 {
        let collector = site.start().await;
        let batches = host.batches(10);
        let (acknowledged, end) = host.send(collector.address(), batches).await;
        end.unwrap();
        assert_eq!(acknowledged.last(), Some(&((round + 1) * 10)));
        let mut reader = site.reader("alice", collector.address()).await;
        let expected = usize::try_from(round + 1).unwrap() * 10;
        assert_eq!(wait_for_events(&mut reader, expected).await.len(), expected);
        collector.stop().await.unwrap();
        match round {
            0 => fs::remove_file(site.config().index_file()).unwrap(),
            _ => fs::write(site.config().index_file(), "not a database, but long enough to look at").unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_log_is_made_anew() {
    let site = Site::new();
    let (mut one, mut two) = (site.host("one"), site.host("two"));
    let collector = site.start().await;
    let batches = one.batches(5);
    one.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();
    fs::remove_dir_all(site.config().log_directory()).unwrap();
    fs::remove_dir_all(site.config().tree_directory()).unwrap();
    let collector = site.start().await;
    let batches = two.batches(7);
    two.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let events = wait_for_events(&mut reader, 7).await;
    assert!(events.len() == 7 && events.iter().all(|event| event.host_id == two.id));
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_forks_end_their_own_stream_only() {
    let site = Site::new();
    let collector = site.start().await;
    let (mut good, mut bad) = (site.host("good"), site.host("bad"));
    let mut good_client = good.client(collector.address()).await;
    send(&mut good_client, good.batches(3)).await.1.unwrap();

    let mut batches = bad.batches(3);
    let second = batches.remove(1);
    let (acknowledged, end) = bad.send(collector.address(), batches).await;
    assert_eq!(acknowledged, [1]);
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("batch 3 came, but 2 is the next one"), "{status}");
    bad.send(collector.address(), vec![second]).await.1.unwrap();

    bad.sealer.rewind(ChainHead::default());
    let forked = bad.seal(vec![secret(5)]).batch;
    let (acknowledged, end) = bad.send(collector.address(), vec![forked]).await;
    assert!(acknowledged.is_empty());
    assert_eq!(end.unwrap_err().code(), Code::AlreadyExists);

    let (acknowledged, end) = send(&mut good_client, good.batches(3)).await;
    end.unwrap();
    assert_eq!(acknowledged, [4, 5, 6]);
    assert_eq!(collector.health().refused(Refusal::Gap), 1);
    assert_eq!(collector.health().refused(Refusal::Fork), 1);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_on_after_the_collectors_own_log_was_damaged_and_verify_names_the_gap() {
    let site = Site::new();
    let mut host = site.host("h");
    let collector = site.start().await;
    let batches = host.batches(6);
    host.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();

    let segment = site.config().log_directory().join("00000000000000000000.seg");
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 300]).unwrap();
    fs::remove_file(site.config().index_file()).unwrap();
    let collector = server::start_with(site.config(), OnLoss::Accept).await.unwrap();
    let batch = host.seal(vec![heartbeat(100)]).batch;
    host.send(collector.address(), vec![batch]).await.1.unwrap();
    collector.stop().await.unwrap();
    let report = verify::verify(&site.config().log_directory()).unwrap();
    assert!(!report.hosts[0].complete);
    assert!(report.hosts[0].statement.contains("missing: batch"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_open_streams_with_a_reason() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let (batches, stream) = tokio::sync::mpsc::channel(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut acknowledgements =
        host.client(collector.address()).await.stream(greeting(stream)).await.unwrap().into_inner();
    batches.send(host.batches(1).remove(0)).await.unwrap();
    assert_eq!(acknowledgements.message().await.unwrap().unwrap().number, 1);
    let started = std::time::Instant::now();
    collector.stop().await.unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(4), "open streams held up the stop");
    assert_eq!(acknowledgements.message().await.unwrap_err().code(), Code::Unavailable);
}
