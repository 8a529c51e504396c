//! Evidence taken away: bundles, in-toto statements, the log itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;

use buildtrail_collector::server::Running;
use buildtrail_evidence::{
    dsse, in_toto,
    records::RecordIndex,
    tlog::note::{NoteKey, SignedCheckpoint},
    verify::{Paths, Question, Trust, Verifier, verify_bundle, verify_directory},
};
use buildtrail_proto::v1::{
    AuditEvent, ExportFormat, ExportJobRequest, GetCheckpointRequest, JobFinished, JobStarted,
    ReadLogRequest, audit_event::Body, export_client::ExportClient,
};
use support::{Site, at, connect, exec, heartbeat, in_job, secret, wait_for_events};
use tonic::{Code, transport::Channel};

const ONE: &str = "0aaa0000000000000000000000000001";
const TWO: &str = "0bbb0000000000000000000000000002";

/// Two jobs at the same time; the first is there from start to end.
fn history() -> Vec<Vec<AuditEvent>> {
    let finished = JobFinished { processes: 2, secret_accesses: 1, ..Default::default() };
    vec![
        vec![heartbeat(0)],
        vec![
            in_job(ONE, "widgets", 0, at(1, Body::JobStarted(JobStarted::default()))),
            in_job(ONE, "widgets", 1, exec(2)),
            in_job(TWO, "gadgets", 1, secret(3)),
        ],
        vec![in_job(TWO, "gadgets", 1, exec(4)), heartbeat(5)],
        vec![
            in_job(ONE, "widgets", 1, secret(6)),
            in_job(ONE, "widgets", 2, exec(7)),
            in_job(ONE, "widgets", 0, at(8, Body::JobFinished(finished))),
        ],
        vec![heartbeat(9)],
    ]
}

async fn scene(site: &Site) -> (Running, ExportClient<Channel>, NoteKey) {
    let collector = site.start().await;
    let mut host = site.host("h");
    let batches = history().into_iter().map(|events| host.seal(events).batch).collect();
    host.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for_events(&mut reader, 10).await;
    let key = reader.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().log_key;
    let client = ExportClient::new(connect(collector.address(), &site.path("alice")).await.unwrap());
    (collector, client.max_decoding_message_size(64 << 20), key.parse().unwrap())
}

async fn export(client: &mut ExportClient<Channel>, job_id: &str, format: ExportFormat) -> Vec<u8> {
    let request = ExportJobRequest { job_id: job_id.into(), format: format.into() };
    let mut pieces = client.export_job(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend(piece.data);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_proves_its_job_without_the_collector_and_tells_nothing_of_others() {
    let site = Site::new();
    let (collector, mut client, log_key) = scene(&site).await;
    let trust = Trust { log_key: Some(log_key), ..Trust::default() };
    let bytes = export(&mut client, "0aaa", ExportFormat::Bundle).await;
    collector.stop().await.unwrap();

    let found = verify_bundle(&bytes, &trust).unwrap();
    assert_eq!(found.report.problems, Vec::<String>::new());
    assert!(found.report.is_complete(), "{:?}", found.report.hosts);
    assert_eq!(found.events.len(), 5);
    for foreign in [TWO, "gadgets"] {
        assert!(!bytes.windows(foreign.len()).any(|window| window == foreign.as_bytes()), "{foreign}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_job_is_exported_as_incomplete() {
    let site = Site::new();
    let (collector, mut client, log_key) = scene(&site).await;
    let bytes = export(&mut client, TWO, ExportFormat::Bundle).await;
    collector.stop().await.unwrap();
    let found = verify_bundle(&bytes, &Trust { log_key: Some(log_key), ..Trust::default() }).unwrap();
    assert!(found.report.is_intact() && !found.report.is_complete());
    assert!(
        found.report.hosts[0].gaps.concat().contains("the job's end"),
        "{:?}",
        found.report.hosts[0].gaps
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_toto_statement_is_signed_with_the_logs_key() {
    let site = Site::new();
    let (collector, mut client, log_key) = scene(&site).await;
    let bytes = export(&mut client, ONE, ExportFormat::InToto).await;
    collector.stop().await.unwrap();
    let (payload, _) = dsse::open(&bytes, Some(&log_key)).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["predicateType"], in_toto::PREDICATE_TYPE);
    let log = &statement["predicate"]["monitorLog"];
    assert_eq!(log["process"].as_array().unwrap().len(), 2);
    assert_eq!(log["fileAccess"].as_array().unwrap().len(), 1);
    assert_eq!(statement["predicate"]["buildtrail_completeness"][0]["complete"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_over_the_wire_and_verified_against_its_checkpoint() {
    let site = Site::new();
    let (collector, mut client, log_key) = scene(&site).await;
    let mut reader = site.reader("alice", collector.address()).await;
    let note = reader.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner().checkpoint;
    let checkpoint = SignedCheckpoint::open(note.as_bytes(), &log_key).unwrap();
    let trust = Trust { log_key: Some(log_key), ..Trust::default() };
    let mut verifier = Verifier::new(Question::default(), trust.expected(Some(&checkpoint)), None);
    let mut records = client.read_log(ReadLogRequest { first_record: 0 }).await.unwrap().into_inner();
    while let Some(record) = records.message().await.unwrap() {
        verifier.record(RecordIndex(record.index), record.record);
    }
    let report = verifier.finish();
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.is_complete());
    assert_eq!(report.events, 10);
    collector.stop().await.unwrap();

    let paths = Paths::find(&site.path("data"));
    let report = verify_directory(&paths, &trust, Question::default()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.events, 10);
    assert!(report.notes[0].contains("newest checkpoint covers"), "{:?}", report.notes);

    let tile = site.path("data/tlog/checkpoint");
    fs::remove_file(tile).unwrap();
    let report = verify_directory(&paths, &trust, Question::default()).unwrap();
    assert!(report.problems[0].contains("no checkpoint"), "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_unknown_jobs_are_refused() {
    let site = Site::new();
    let (collector, mut client, _) = scene(&site).await;
    let request = |job_id: &str, format: ExportFormat| ExportJobRequest {
        job_id: job_id.into(),
        format: format.into(),
    };
    let unknown = client.export_job(request("ffff", ExportFormat::Bundle)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let neither = client.export_job(request(ONE, ExportFormat::Unspecified)).await.unwrap_err();
    assert_eq!(neither.code(), Code::InvalidArgument);
    let channel = connect(collector.address(), &site.path("h")).await.unwrap();
    let host = ExportClient::new(channel).read_log(ReadLogRequest::default()).await.unwrap_err();
    assert_eq!(host.code(), Code::PermissionDenied);
    collector.stop().await.unwrap();
}
