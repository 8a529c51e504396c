//! The signed tree over the log: it grows, never shrinks, proves every record and event, and survives damage.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use buildtrail_collector::server::{self, OnLoss, ServeError, TreeError};
use buildtrail_evidence::{
    batch,
    digest::Digest,
    log::leaf_bytes,
    merkle::leaf_hash,
    records::{Entry, Limits, Reader, RecordIndex},
    tlog::{
        note::{Checkpoint, NoteKey, SignedCheckpoint},
        proof::{TlogProof, check_consistency, check_inclusion},
        tiles::Tiles,
    },
};
use buildtrail_proto::v1::{
    GetCheckpointRequest, ProveConsistencyRequest, ProveEventRequest, ProveRecordRequest,
    query_client::QueryClient,
};
use http_body_util::BodyExt as _;
use hyper::Request;
use support::{Site, heartbeat, secret, wait_for_events};
use tonic::{body::Body, client::GrpcService, transport::Channel};

fn log_key(site: &Site) -> NoteKey {
    fs::read_to_string(site.path("data/tlog/log.vkey")).unwrap().trim().parse().unwrap()
}

fn checkpoint_on_disk(site: &Site) -> Checkpoint {
    let note = fs::read(site.path("data/tlog/checkpoint")).unwrap();
    SignedCheckpoint::open(&note, &log_key(site)).unwrap().checkpoint().clone()
}

/// Every record of the log, in order.
fn records(site: &Site) -> Vec<Vec<u8>> {
    let log = site.config().log_directory();
    let entries = Reader::whole(&log, Limits::default().max_record_bytes).unwrap();
    entries
        .map(|entry| match entry.unwrap() {
            Entry::Record { payload, .. } => payload,
            Entry::Quarantined(range) => panic!("{range}"),
        })
        .collect()
}

/// Everything in the log is in the signed tree, in its place.
fn assert_tree_is_the_log(site: &Site) {
    let (head, records) = (checkpoint_on_disk(site), records(site));
    assert_eq!(head.size, records.len() as u64);
    let tiles = Tiles::new(&site.path("data/tlog"));
    for (index, record) in (0..).zip(&records) {
        let leaf = leaf_hash(&leaf_bytes(record).unwrap());
        check_inclusion(leaf, index, &tiles.inclusion(&head, index).unwrap(), &head).unwrap();
    }
}

async fn wait_for_size(reader: &mut QueryClient<Channel>, size: u64) -> String {
    for _ in 0..500 {
        let answer = reader.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner();
        let key: NoteKey = answer.log_key.parse().unwrap();
        let head = SignedCheckpoint::open(answer.checkpoint.as_bytes(), &key).unwrap();
        if head.checkpoint().size >= size {
            return answer.checkpoint;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no checkpoint of size {size} in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_signed_at_the_stop_and_the_tree_goes_on_over_restarts() {
    let site = Site::new();
    let mut host = site.host("h");
    let mut before: Option<Checkpoint> = None;
    for round in [3, 300, 1, 260] {
        let collector = site.start().await;
        let batches = host.batches(round);
        host.send(collector.address(), batches).await.1.unwrap();
        collector.stop().await.unwrap();
        assert_tree_is_the_log(&site);
        let head = checkpoint_on_disk(&site);
        if let Some(before) = before {
            let (path, _) = Tiles::new(&site.path("data/tlog")).consistency(&head, before.size).unwrap();
            check_consistency(before.size, before.root, &path, &head).unwrap();
        }
        before = Some(head);
    }
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data/log-key.pem"), 0o600);
    assert!(!site.path("data/tlog/tile/0/000.p").exists(), "a full tile serves for its partial ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_events_and_growth_are_proven_to_a_reader() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let batches: Vec<_> =
        (0..3).map(|n| host.seal((0..5).map(|k| secret(n * 5 + k)).collect()).batch).collect();
    host.send(collector.address(), batches.clone()).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for_events(&mut reader, 15).await;
    // The start, the host, three batches.
    wait_for_size(&mut reader, 5).await;

    let answer = reader.prove_record(ProveRecordRequest { record: 3 }).await.unwrap().into_inner();
    let proof = TlogProof::parse(&answer.proof).unwrap();
    let head = SignedCheckpoint::open(proof.checkpoint.as_bytes(), &log_key(&site)).unwrap();
    check_inclusion(leaf_hash(&answer.leaf), 3, &proof.path, head.checkpoint()).unwrap();
    assert_eq!(answer.leaf, [&[2][..], &batches[1].header].concat());

    let asked = ProveEventRequest { host_id: host.id.clone(), boot_id: "b1".into(), sequence: 8 };
    let answer = reader.prove_event(asked.clone()).await.unwrap().into_inner();
    assert_eq!((answer.position, answer.events), (2, 5));
    assert_eq!(answer.header, batches[1].header);
    let path: Vec<Digest> = answer.path.iter().map(|hash| Digest::try_from(&hash[..]).unwrap()).collect();
    let root = batch::decode_header(&answer.header).unwrap().events_root;
    let leaf = leaf_hash(&answer.event);
    batch::check_event_path(leaf, 2, 5, &path, Digest::try_from(&root[..]).unwrap()).unwrap();
    let proof = TlogProof::parse(&answer.proof).unwrap();
    let head = SignedCheckpoint::open(proof.checkpoint.as_bytes(), &log_key(&site)).unwrap();
    let leaf = leaf_hash(&[&[2][..], &answer.header].concat());
    check_inclusion(leaf, proof.index, &proof.path, head.checkpoint()).unwrap();

    let asked_growth = ProveConsistencyRequest { old_size: 2, new_size: 4 };
    let growth = reader.prove_consistency(asked_growth).await.unwrap().into_inner();
    let digest = |bytes: &[u8]| Digest::try_from(bytes).unwrap();
    let new = Checkpoint { origin: String::new(), size: 4, root: digest(&growth.new_root) };
    let path: Vec<Digest> = growth.path.iter().map(|hash| digest(hash)).collect();
    check_consistency(2, digest(&growth.old_root), &path, &new).unwrap();

    for missing in [16, 0] {
        let asked = ProveEventRequest { sequence: missing, ..asked.clone() };
        assert_eq!(reader.prove_event(asked).await.unwrap_err().code(), tonic::Code::NotFound);
    }
    for record in [100_000, u64::MAX] {
        let status = reader.prove_record(ProveRecordRequest { record }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }
    let beyond = ProveConsistencyRequest { old_size: u64::MAX, new_size: u64::MAX };
    assert_eq!(reader.prove_consistency(beyond).await.unwrap_err().code(), tonic::Code::OutOfRange);
    collector.stop().await.unwrap();
}

/// A site with a stopped collector that has a few batches.
async fn stopped_site(batches: usize) -> (Site, support::TestHost) {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let batches = host.batches(batches);
    host.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();
    (site, host)
}

fn segment(site: &Site) -> std::path::PathBuf {
    site.config().log_directory().join("00000000000000000000.seg")
}

async fn start_error(site: &Site) -> TreeError {
    match server::start(site.config()).await {
        Err(ServeError::Tree(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_cut_off_is_refused_until_the_loss_is_accepted() {
    let (site, mut host) = stopped_site(6).await;
    let signed = checkpoint_on_disk(&site);
    let bytes = fs::read(segment(&site)).unwrap();
    fs::write(segment(&site), &bytes[..bytes.len() - 400]).unwrap();
    let error = start_error(&site).await;
    assert!(matches!(error, TreeError::RolledBack { .. }) && error.to_string().contains("--accept-loss"));
    assert_eq!(checkpoint_on_disk(&site), signed, "a refused start changes nothing");

    let collector = server::start_with(site.config(), OnLoss::Accept).await.unwrap();
    let batch = host.seal(vec![heartbeat(100)]).batch;
    host.send(collector.address(), vec![batch]).await.1.unwrap();
    collector.stop().await.unwrap();
    let head = checkpoint_on_disk(&site);
    assert!(head.size > signed.size);
    let (path, _) = Tiles::new(&site.path("data/tlog")).consistency(&head, signed.size).unwrap();
    check_consistency(signed.size, signed.root, &path, &head).unwrap();
    site.start().await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_other_records_at_its_end_is_refused() {
    let (site, _) = stopped_site(3).await;
    let (other, _) = stopped_site(9).await;
    fs::copy(segment(&other), segment(&site)).unwrap();
    let error = start_error(&site).await;
    assert!(matches!(error, TreeError::Replaced(RecordIndex(0))), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_or_origin_is_refused_with_a_sentence() {
    let (site, _) = stopped_site(3).await;
    let (other, _) = stopped_site(3).await;
    let mut renamed = site.config();
    renamed.tree.origin = "another.example/log".into();
    let error = server::start(renamed).await.unwrap_err().to_string();
    assert!(error.contains("another.example/log") && error.contains("tree.origin"), "{error}");
    fs::copy(other.path("data/log-key.pem"), site.path("data/log-key.pem")).unwrap();
    assert!(matches!(start_error(&site).await, TreeError::Checkpoint { .. }));
    fs::set_permissions(site.path("data/log-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(start_error(&site).await.to_string().contains("0600"));
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_tiles_are_made_anew_from_the_log() {
    let (site, _) = stopped_site(300).await;
    let tlog = site.path("data/tlog");
    let width = checkpoint_on_disk(&site).size % 256;
    flip(&tlog.join(format!("tile/0/001.p/{width}")));
    site.start().await.stop().await.unwrap();
    assert_tree_is_the_log(&site);
    fs::remove_dir_all(tlog.join("tile")).unwrap();
    site.start().await.stop().await.unwrap();
    assert_tree_is_the_log(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_left_behind_the_checkpoint_do_no_harm() {
    let (site, _) = stopped_site(20).await;
    let tlog = site.path("data/tlog");
    let old = fs::read(tlog.join("checkpoint")).unwrap();
    let old_size = checkpoint_on_disk(&site).size;
    site.start().await.stop().await.unwrap();
    assert!(checkpoint_on_disk(&site).size > old_size);
    // As if the tiles had come to disk and the checkpoint had not.
    fs::write(tlog.join("checkpoint"), old).unwrap();
    fs::write(tlog.join("checkpoint.new"), "half").unwrap();
    site.start().await.stop().await.unwrap();
    assert_tree_is_the_log(&site);
}

async fn get(channel: &mut Channel, address: std::net::SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let request = Request::get(format!("https://{address}{path}")).body(Body::empty()).unwrap();
    std::future::poll_fn(|context| GrpcService::poll_ready(channel, context)).await.unwrap();
    let response = GrpcService::call(channel, request).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_can_fetch_the_trees_files_and_nothing_else_and_nobody_else_can() {
    let site = Site::new();
    let collector = site.start().await;
    let address = collector.address();
    let host = site.host("h");
    site.reader("alice", address).await;
    let mut alice = support::connect(address, &site.path("alice")).await.unwrap();
    let (status, note) = get(&mut alice, address, "/tlog/checkpoint").await;
    let head = SignedCheckpoint::open(&note, &log_key(&site)).unwrap();
    assert_eq!(status, 200);
    let tile = format!("/tlog/tile/0/000.p/{}", head.checkpoint().size);
    let (status, tile) = get(&mut alice, address, &tile).await;
    assert_eq!((status, tile.len() as u64), (200, 32 * head.checkpoint().size));
    for other in ["/tlog/tile/0/999", "/tlog/..%2flog-key.pem", "/tlog/tile/0/..%2f..%2f..%2flog-key.pem"] {
        assert_eq!(get(&mut alice, address, other).await.0, 404, "{other}");
    }
    let mut not_a_reader = support::connect(address, &host.out).await.unwrap();
    assert_eq!(get(&mut not_a_reader, address, "/tlog/checkpoint").await.0, 401);
    collector.stop().await.unwrap();
}
