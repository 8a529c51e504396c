use buildtrail_proto::v1::{
    AuditEvent, Heartbeat, Job, JobFinished, JobStarted, SecretAccess, audit_event::Body,
};

use super::*;
use crate::{
    batch::{LossTotals, thin_events},
    key::HostKey,
    log::{LogEntry, leaf_bytes},
    merkle::{Frontier, leaf_hash},
    testing::{HOST, boot, heartbeat, host_record, sealer},
    tlog::note::{Checkpoint, KeyKind},
    verify::{Trust, verify_bundle},
};

const JOB: &str = "0aaa0000000000000000000000000001";

fn log_key() -> NoteSigner {
    NoteSigner::new("example.org/build", KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap()
}

fn of_job(seconds: i128, body: Body) -> AuditEvent {
    let job = Job { job_id: JOB.into(), repository: "acme/widgets".into(), ..Default::default() };
    AuditEvent { job: Some(job), body: Some(body), ..heartbeat(seconds) }
}

/// A job of one secret access; another job's event stands between.
fn events() -> Vec<AuditEvent> {
    let secret = SecretAccess { secret: "AWS shared credentials".into(), ..Default::default() };
    let mut foreign = of_job(2, Body::SecretAccess(secret.clone()));
    foreign.job = Some(Job { job_id: "0bbb".into(), ..Default::default() });
    vec![
        of_job(0, Body::JobStarted(JobStarted::default())),
        of_job(1, Body::SecretAccess(secret)),
        foreign,
        AuditEvent { body: Some(Body::Heartbeat(Heartbeat::default())), ..heartbeat(3) },
        of_job(4, Body::JobFinished(JobFinished { secret_accesses: 1, ..Default::default() })),
    ]
}

/// A bundle of a log of two records: a host and its first batch.
fn example(events: Vec<AuditEvent>, keep: impl Fn(&AuditEvent) -> bool) -> Vec<u8> {
    let batch = sealer().seal(&boot("b1"), events, LossTotals::default()).batch;
    let records = [
        LogEntry::Host(host_record()).encode(),
        LogEntry::Batch(thin_events(&batch, keep).unwrap()).encode(),
    ];
    let leaves = records.each_ref().map(|record| leaf_hash(&leaf_bytes(record).unwrap()));
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.push(leaf);
    }
    let checkpoint = Checkpoint { origin: "example.org/build".into(), size: 2, root: tree.root() };
    let header = BundleHeader {
        log_key: log_key().public().to_string(),
        job_id: JOB.into(),
        host_id: HOST.into(),
        exported_for: "auditor".into(),
        collector_version: "0.1.0".into(),
        ..Default::default()
    };
    let note = checkpoint.sign(&log_key()).unwrap().note();
    let mut writer = Writer::new(&header, &note).unwrap();
    for (index, record) in records.into_iter().enumerate() {
        let path = leaves[1 - index].as_bytes().to_vec();
        writer.record(&BundleRecord { index: index as u64, record, path }).unwrap();
    }
    writer.finish(&log_key()).unwrap()
}

fn ours(event: &AuditEvent) -> bool {
    event.job.as_ref().is_none_or(|job| job.job_id == JOB)
}

fn trust() -> Trust {
    Trust { log_key: Some(log_key().public().clone()), ..Trust::default() }
}

#[test]
fn a_bundle_proves_its_job_and_holds_nothing_of_others() {
    let bytes = example(events(), ours);
    let found = verify_bundle(&bytes, &trust()).unwrap();
    assert_eq!(found.report.problems, Vec::<String>::new());
    let statement = "job 0aaa0000000000000000000000000001 (acme/widgets ) on runner-7: 2026-11-22 09:00:00–09:00:04 UTC: \
                     complete from its start to its end, 3 events, 0 lost on the host meanwhile";
    assert_eq!(found.report.hosts[0].statement, statement);
    assert_eq!(found.events.len(), 3);
    assert!(!bytes.windows(4).any(|window| window == b"0bbb"));
    assert!(
        found.report.notes.iter().any(|note| note.contains("1 event of others")),
        "{:?}",
        found.report.notes
    );
}

#[test]
fn what_the_agent_counted_and_is_not_there_is_missing() {
    let without_secret = |event: &AuditEvent| ours(event) && event.kind() != "secret.access";
    let found = verify_bundle(&example(events(), without_secret), &trust()).unwrap();
    assert!(found.report.is_intact() && !found.report.is_complete());
    let gaps = &found.report.hosts[0].gaps;
    assert_eq!(gaps[..], ["1 of 1 secret.access that the agent counted"]);

    let mut unfinished = events();
    unfinished.pop();
    let found = verify_bundle(&example(unfinished, ours), &trust()).unwrap();
    assert!(found.report.hosts[0].gaps[0].starts_with("the job's end"));
}

#[test]
fn events_of_others_are_a_problem() {
    let found = verify_bundle(&example(events(), |_| true), &trust()).unwrap();
    assert!(found.report.problems[0].contains("another job"), "{:?}", found.report.problems);
}

#[test]
fn every_flipped_byte_is_a_problem() {
    let bytes = example(events(), ours);
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1 << (position % 8);
        let intact = verify_bundle(&changed, &trust()).is_ok_and(|found| found.report.is_intact());
        assert!(!intact, "byte {position}");
    }
}

#[test]
fn a_bundle_of_another_log_is_a_problem() {
    let other = NoteSigner::new("example.org/build", KeyKind::Log, HostKey::from_seed(&[2; 32])).unwrap();
    let trust = Trust { log_key: Some(other.public().clone()), ..Trust::default() };
    let found = verify_bundle(&example(events(), ours), &trust).unwrap();
    assert!(found.report.problems[0].contains("another log"), "{:?}", found.report.problems);
    assert_eq!(verify_bundle(b"something else", &trust), Err(BundleError::NotABundle));
}

#[test]
fn the_test_vector_of_the_specification_holds() {
    let text = include_str!("../../../docs/formats/bundle.md");
    let (_, rest) = text.split_once("\nbundle:\n").unwrap();
    let block: String = rest.lines().take_while(|line| !line.starts_with("```")).collect();
    assert_eq!(block, hex::encode(example(events(), ours)));
}
