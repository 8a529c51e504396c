//! A spool without room, on a disk without room, and with events that wait too long.

use std::collections::{BTreeMap, BTreeSet};

use buildtrail_evidence::records::RecordIndex;
use buildtrail_proto::{Timestamp, timestamp_from_unix_nanos};

use super::*;
use crate::spool::{
    given_up,
    journal::{Journal, Level},
};

const TIGHT: u64 = 1 << 20;

fn tight() -> config::Spool {
    config::Spool { max_bytes: TIGHT, segment_bytes: 1 << 16, batch_events: 50, ..settings() }
}

/// Pushes without letting the queue overflow.
fn push_all(handle: &SpoolHandle, events: impl Iterator<Item = AuditEvent>) {
    for (event, number) in events.zip(1..) {
        handle.push(event);
        if number % 200 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn mixed(rounds: u64) -> impl Iterator<Item = AuditEvent> {
    (0..rounds).flat_map(|_| [connection(), secret(&"s".repeat(200))])
}

fn sum(counts: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (kind, count) in more {
        *counts.entry(kind.clone()).or_default() += count;
    }
}

/// Every event that is not there was reported as given up, with kind and number, and no other.
fn assert_given_up_as_reported(batches: &[OpenedBatch]) -> u64 {
    let (mut missing, mut withheld) = (BTreeMap::new(), BTreeSet::new());
    for batch in batches {
        sum(&mut missing, &batch.withheld_counts());
        withheld.extend(batch.withheld.iter().map(|sequence| (batch.header.boot_id.clone(), *sequence)));
    }
    let (mut reported, mut ranges) = (BTreeMap::new(), Vec::new());
    for loss in losses(batches).into_iter().filter(|loss| loss.first_sequence > 0) {
        sum(&mut reported, &loss.kinds);
        for end in [loss.first_sequence, loss.last_sequence] {
            assert!(
                withheld.contains(&(loss.boot_id.clone(), end)),
                "{loss:?} begins and ends with a lost event"
            );
        }
        ranges.push((loss.boot_id, loss.first_sequence..=loss.last_sequence));
    }
    assert_eq!(missing, reported);
    for (boot, sequence) in &withheld {
        let is_covered = ranges.iter().any(|(of, range)| of == boot && range.contains(sequence));
        assert!(is_covered, "event {sequence} of {boot} is missing and in no report");
    }
    withheld.len() as u64
}

fn count_of(batches: &[OpenedBatch], kind: &str) -> u64 {
    batches.iter().flat_map(|batch| &batch.events).filter(|event| event.kind() == kind).count() as u64
}

#[test]
fn a_full_spool_gives_up_its_oldest_bulk_first_and_reports_exactly_what_went() {
    const ROUNDS: u64 = 4000;
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &tight(), "boot-1");
    push_all(&spool.handle(), mixed(ROUNDS));
    let done = spool.shutdown(PATIENCE);
    let on_disk: u64 = walk(state.path());
    assert!(on_disk <= TIGHT, "{on_disk} bytes");

    let spool = start(state.path(), &tight(), "boot-1");
    let batches = opened(&mut spool.outbox());
    assert_one_chain(&batches);
    let given_up = assert_given_up_as_reported(&batches);
    assert_eq!(given_up, done.given_up_events);
    let (connections, secrets) =
        (count_of(&batches, "connection.opened"), count_of(&batches, "secret.access"));
    assert_eq!(connections + secrets + given_up + done.lost_events, 2 * ROUNDS);
    assert!(connections < secrets, "{connections} connections and {secrets} secrets are left");
    // The newest secrets are there, whatever became of older ones.
    let newest =
        batches.iter().rev().find(|batch| count_of(std::slice::from_ref(batch), "secret.access") > 0);
    let stated = batches.last().unwrap().header.lost_in_agent;
    assert!(newest.unwrap().header.number + 40 > batches.last().unwrap().header.number);
    let refused: u64 =
        losses(&batches).iter().filter(|loss| loss.first_sequence == 0).map(|loss| loss.count).sum();
    assert_eq!(refused, stated, "what was refused is reported");
    let _ = spool.shutdown(PATIENCE);
}

fn walk(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { walk(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

#[test]
fn secrets_go_only_when_no_bulk_is_left_and_new_ones_are_kept() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &tight(), "boot-1");
    push_all(&spool.handle(), (0..1500).map(|_| connection()));
    push_all(&spool.handle(), (0..1500).map(|number| secret(&format!("{number:0200}"))));
    let _ = spool.shutdown(PATIENCE);
    let spool = start(state.path(), &tight(), "boot-1");
    assert_eq!(secrets(&opened(&mut spool.outbox())).len(), 1500, "bulk made room for all of them");
    let _ = spool.shutdown(PATIENCE);
    let spool = start(state.path(), &tight(), "boot-1");
    push_all(&spool.handle(), (1500..9000).map(|number| secret(&format!("{number:0200}"))));
    let done = spool.shutdown(PATIENCE);
    assert_eq!(done.lost_events, 0);

    let spool = start(state.path(), &tight(), "boot-1");
    let batches = opened(&mut spool.outbox());
    assert_one_chain(&batches);
    assert!(assert_given_up_as_reported(&batches) > 1500);
    let kept = secrets(&batches);
    assert_eq!(count_of(&batches, "connection.opened"), 0);
    assert!(kept.is_sorted() && kept.last().is_some_and(|last| last.ends_with("8999")), "the newest stay");
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn a_batch_that_was_handed_to_the_uplink_is_not_given_up() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &tight(), "boot-1");
    push_all(&spool.handle(), (0..500).map(|_| connection()));
    let mut outbox = spool.outbox();
    let mut handed = Vec::new();
    while handed.len() < 5 {
        handed.extend(outbox.read_next().unwrap());
        thread::sleep(Duration::from_millis(1));
    }
    push_all(&spool.handle(), mixed(4000));
    let given_up = || spool.handle().stats().given_up_events > 0;
    for _ in 0..2000 {
        if given_up() {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert!(given_up());
    let key = HostKey::from_seed(&SEED).public();
    let next = batch::open(&outbox.read_next().unwrap().unwrap().batch, &key).unwrap();
    assert!(!next.withheld.is_empty(), "an open reader sees what was given up meanwhile");
    outbox.rewind();
    for before in handed {
        assert_eq!(outbox.read_next().unwrap().unwrap(), before);
    }
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn acknowledgements_make_room_again() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &tight(), "boot-1");
    push_all(&spool.handle(), mixed(3000));
    assert!(spool.shutdown(PATIENCE).given_up_events > 0);
    let spool = start(state.path(), &tight(), "boot-1");
    let mut outbox = spool.outbox();
    while let Some(outgoing) = outbox.read_next().unwrap() {
        outbox.acknowledge(outgoing.index);
    }
    let delivered = spool.handle().stats().delivered_sequence;
    assert!(delivered > 5000, "{delivered}");
    push_all(&spool.handle(), mixed(1000));
    let done = spool.shutdown(PATIENCE);
    assert_eq!((done.given_up_events, done.lost_events), (0, 0));
}

/// Gives up all connections of the first file, as the spool would, and stops where `until` says.
fn interrupted(directory: &Path, until: Stop) {
    let (mut journal, _) = Journal::open(directory, tight().segment_bytes).unwrap();
    let is_bulk = |event: &AuditEvent| event.kind() == "connection.opened";
    let planned = journal.plan(RecordIndex(0), true, Some(Level::Bulk), &is_bulk).unwrap();
    let (first, plan) = planned.unwrap();
    given_up::write_note(directory, &plan.losses(Reason::SpoolFull)).unwrap();
    if until == Stop::AfterReplacing {
        assert!(journal.replace(first, &plan, Some(Level::Bulk)).unwrap());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    AfterNoting,
    AfterReplacing,
}

#[test]
fn what_was_given_up_is_reported_once_whenever_the_agent_was_killed() {
    for until in [Stop::AfterNoting, Stop::AfterReplacing] {
        let state = tempfile::tempdir().unwrap();
        let spool = start(state.path(), &tight(), "boot-1");
        push_all(&spool.handle(), mixed(20));
        let directory = spool.directory.clone();
        let _ = spool.shutdown(PATIENCE);
        interrupted(&directory, until);
        let note = fs::read(directory.join("giving-up")).unwrap();
        for _ in 0..2 {
            let (_, spool) = reopen(state.path());
            let _ = spool.shutdown(PATIENCE);
            assert!(!directory.join("giving-up").exists());
            // As if the kill had come between the report and the end of the note.
            fs::write(directory.join("giving-up"), &note).unwrap();
        }
        let (batches, spool) = reopen(state.path());
        let given_up = assert_given_up_as_reported(&batches);
        assert_eq!(given_up, if until == Stop::AfterReplacing { 20 } else { 0 });
        let _ = spool.shutdown(PATIENCE);
    }
}

#[test]
fn what_waits_too_long_is_given_up_and_reported() {
    const HOUR: i128 = 3_600_000_000_000;
    let state = tempfile::tempdir().unwrap();
    let now = crate::clock::BootTime::now().to_unix_nanos();
    let at = |hours: i128| -> Option<Timestamp> { Some(timestamp_from_unix_nanos(now - hours * HOUR)) };
    let limit = config::Spool { max_age_hours: 200_000, ..settings() };
    let spool = start(state.path(), &limit, "boot-0");
    for hours in [300_000, 250_000, 1] {
        spool.handle().push(AuditEvent { time: at(hours), ..secret(&hours.to_string()) });
    }
    let _ = spool.shutdown(PATIENCE);

    let spool = start(state.path(), &limit, "boot-1");
    spool.handle().push(AuditEvent { boot_time_ns: crate::clock::BootTime::now().0, ..secret("new") });
    let done = spool.shutdown(PATIENCE);
    assert_eq!((done.given_up_events, done.lost_events), (2, 0));
    let (batches, spool) = reopen(state.path());
    assert_one_chain(&batches);
    assert_eq!(assert_given_up_as_reported(&batches), 2);
    assert_eq!(secrets(&batches), ["1", "new"]);
    let loss = losses(&batches).remove(0);
    assert_eq!((loss.reason.as_str(), loss.boot_id.as_str()), ("older than spool.max_age_hours", "boot-0"));
    assert_eq!((loss.first_time, loss.last_time), (at(300_000), at(250_000)));
    let _ = spool.shutdown(PATIENCE);
}

#[test]
#[ignore = "needs root: mounts a small file system in a mount namespace of its own"]
fn the_spool_leaves_disk_space_to_others_and_works_on_a_disk_that_others_have_filled() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_owned();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
        let free = || {
            let disk = nix::sys::statvfs::statvfs(&path).unwrap();
            disk.blocks_available() * disk.fragment_size()
        };
        let sharing = config::Spool { max_bytes: 64 << 20, min_free_bytes: 1 << 20, ..tight() };
        let spool = start(&path, &sharing, "boot-1");
        push_all(&spool.handle(), (0..10_000).map(|_| connection()));
        assert!(free() >= 1 << 20, "{} bytes are left", free());
        // Nothing at all is left, and yet something important comes.
        let _ = fs::write(path.join("filler"), vec![0; 4 << 20]);
        assert_eq!(free(), 0);
        push_all(&spool.handle(), (0..500).map(|number| secret(&format!("{number:04}"))));
        let done = spool.shutdown(PATIENCE);
        fs::remove_file(path.join("filler")).unwrap();
        let (batches, spool) = reopen(&path);
        assert_one_chain(&batches);
        assert_eq!(assert_given_up_as_reported(&batches), done.given_up_events);
        assert_eq!(secrets(&batches).len(), 500, "{done:?}");
        assert_eq!(done.lost_events, 0, "{done:?}");
        let _ = spool.shutdown(PATIENCE);
    })
    .join()
    .unwrap();
}
