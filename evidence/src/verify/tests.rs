use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{
    batch::{LossTotals, Sealer},
    key::HostKey,
    log::LogEntry,
    records::RecordLog,
    testing::{HOST, boot, heartbeat, host_record, seal, sealer},
};

/// The records of a log with `batches` batches of one host, its introduction first.
fn honest(batches: usize) -> Vec<Vec<u8>> {
    let mut sealer = sealer();
    let mut records = vec![LogEntry::Host(host_record()).encode()];
    records.extend((0..batches).map(|_| LogEntry::Batch(seal(&mut sealer).batch).encode()));
    records
}

fn written(records: &[Vec<u8>]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = RecordLog::open(directory.path(), Limits::default()).unwrap();
    for record in records {
        log.append(record).unwrap();
    }
    log.sync().unwrap();
    directory
}

fn report(records: &[Vec<u8>]) -> Report {
    verify(written(records).path()).unwrap()
}

fn append_batch(records: &mut Vec<Vec<u8>>, sealer: &mut Sealer, boot_name: &str, lost: LossTotals) {
    let made = sealer.seal(&boot(boot_name), vec![heartbeat(847)], lost);
    records.push(LogEntry::Batch(made.batch).encode());
}

#[test]
fn an_honest_log_is_complete_in_words() {
    let mut sealer = sealer();
    let mut records = vec![LogEntry::Host(host_record()).encode()];
    records.push(LogEntry::Batch(seal(&mut sealer).batch).encode());
    append_batch(&mut records, &mut sealer, "b1", LossTotals { in_kernel: 2, in_agent: 0 });
    append_batch(&mut records, &mut sealer, "b1", LossTotals { in_kernel: 3, in_agent: 1 });
    append_batch(&mut records, &mut sealer, "b2", LossTotals { in_kernel: 5, in_agent: 0 });
    let report = report(&records);
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.batches, report.events), (4, 5));
    assert!(report.is_intact() && report.hosts[0].complete);
    let expected = "runner-7: 2026-11-22 09:00:00–09:14:07 UTC: complete, 5 events, 9 lost";
    assert_eq!(report.hosts[0].statement, expected);
    assert_eq!(report.to_response().hosts[0].lost, 9);
}

#[test]
fn a_log_without_hosts_is_intact() {
    assert_eq!(report(&[]), Report::default());
}

#[test]
fn a_removed_batch_is_the_exact_gap() {
    let mut records = honest(6);
    records.drain(3..5);
    let report = report(&records);
    assert!(!report.hosts[0].complete);
    let gap = "batches 3–4 (events 5–8 of boot b1) between 2026-11-22 09:01:07 and 2026-11-22 09:04:00 UTC";
    assert_eq!(report.hosts[0].gaps, [gap]);
    assert!(report.hosts[0].statement.contains("INCOMPLETE, 8 events, 0 lost; missing: batches 3–4"));
    assert_eq!(report.problems, [format!("Host {HOST} has gaps: {gap}.")]);
}

#[test]
fn reordered_repeated_and_foreign_records_are_problems() {
    let records = honest(4);
    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut changed = records.clone();
        change(&mut changed);
        report(&changed).problems
    };
    assert_eq!(with(&|_| {}), Vec::<String>::new());
    assert!(!with(&|records| records.swap(2, 3)).is_empty());
    assert!(!with(&|records| records.swap(0, 1)).is_empty());
    assert!(with(&|records| records.push(records[2].clone()))[0].contains("twice"));
    assert!(with(&|records| records.insert(1, records[0].clone()))[0].contains("second time"));
    assert!(with(&|records| records.push(b"\x09garbage".to_vec()))[0].contains("unknown to this version"));
    assert!(with(&|records| drop(records.remove(0)))[0].contains("whose key is not in the log"));
    assert!(with(&|records| drop(records.remove(1)))[0].contains("batch 1 (events 1–2 of boot b1) before"));
}

#[test]
fn a_key_that_is_not_the_certificates_is_a_problem() {
    let mut records = honest(1);
    let public_key = HostKey::from_seed(&[3; 32]).public().as_bytes().to_vec();
    records[0] = LogEntry::Host(HostRecord { public_key, ..host_record() }).encode();
    let report = report(&records);
    assert!(report.problems[0].contains("not the one in its certificate"));
    assert!(report.problems[1].contains("not signed by this host's key"));
    assert!(!report.hosts[0].complete);
}

#[test]
fn a_lost_beginning_is_a_problem() {
    let directory = written(&honest(2));
    let first = directory.path().join("00000000000000000000.seg");
    fs::rename(&first, directory.path().join("00000000000000000005.seg")).unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(report.problems[0].contains("beginning of the log is missing"));
}

#[test]
fn every_flipped_byte_of_a_log_is_a_problem() {
    let directory = written(&honest(1));
    let path: PathBuf = directory.path().join("00000000000000000000.seg");
    let bytes = fs::read(&path).unwrap();
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        fs::write(&path, &flipped).unwrap();
        assert!(!verify(directory.path()).unwrap().is_intact(), "byte {position}");
    }
}

#[test]
fn only_what_the_writer_named_is_verified_while_it_writes() {
    let directory = written(&honest(3));
    let path = directory.path().join("00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([1, 2, 3]);
    fs::write(&path, bytes).unwrap();
    assert!(!verify(directory.path()).unwrap().is_intact());
    let report = verify_up_to(directory.path(), RecordIndex(3)).unwrap();
    assert!(report.is_intact());
    assert_eq!(report.batches, 2);
}

#[test]
fn a_hostile_name_cannot_reach_the_terminal() {
    let mut records = honest(1);
    records[0] = LogEntry::Host(HostRecord { name: "a\u{1b}[2Jb".into(), ..host_record() }).encode();
    assert!(report(&records).hosts[0].statement.starts_with("a\\u{1b}[2Jb: 2026"));
}
