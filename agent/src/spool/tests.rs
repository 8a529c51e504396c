use std::{fs, path::Path, time::Duration};

use buildtrail_evidence::{
    batch::{self, OpenedBatch},
    chain::{Accepted, Chain},
};
use buildtrail_proto::v1::{ConnectionOpened, Loss, SecretAccess, audit_event::Body};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::*;

mod full;

const SEED: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(10);

fn settings() -> config::Spool {
    config::Spool { batch_events: 10, batch_interval_ms: 5, ..Default::default() }
}

fn start(state: &Path, settings: &config::Spool, boot: &str) -> Spool {
    let identity = Identity {
        host_id: HostId::parse("host-1").unwrap(),
        boot_id: BootId::parse(boot).unwrap(),
        key: HostKey::from_seed(&SEED),
        build: Build::default(),
    };
    Spool::start(state, settings, identity).unwrap()
}

fn event(body: Body) -> AuditEvent {
    AuditEvent { body: Some(body), ..Default::default() }
}

fn secret(name: &str) -> AuditEvent {
    event(Body::SecretAccess(SecretAccess { secret: name.into(), ..Default::default() }))
}

fn connection() -> AuditEvent {
    event(Body::ConnectionOpened(ConnectionOpened { remote_address: "x".repeat(400), ..Default::default() }))
}

fn push_secrets(spool: &Spool, names: std::ops::Range<u32>) {
    for name in names {
        spool.handle().push(secret(&name.to_string()));
    }
}

/// Everything that is in the spool and not acknowledged, each batch checked.
fn opened(outbox: &mut Outbox) -> Vec<OpenedBatch> {
    let key = HostKey::from_seed(&SEED).public();
    outbox.rewind();
    let mut batches = Vec::new();
    while let Some(outgoing) = outbox.read_next().unwrap() {
        batches.push(batch::open(&outgoing.batch, &key).unwrap());
    }
    batches
}

fn assert_one_chain(batches: &[OpenedBatch]) {
    let mut chain = Chain::default();
    for batch in batches {
        assert_eq!(chain.accept(batch), Ok(Accepted::New), "batch {}", batch.header.number);
    }
}

fn secrets(batches: &[OpenedBatch]) -> Vec<String> {
    let events = batches.iter().flat_map(|batch| &batch.events);
    events
        .filter_map(|event| match &event.body {
            Some(Body::SecretAccess(access)) => Some(access.secret.clone()),
            _ => None,
        })
        .collect()
}

fn losses(batches: &[OpenedBatch]) -> Vec<Loss> {
    let events = batches.iter().flat_map(|batch| &batch.events);
    events
        .filter_map(|event| if let Some(Body::Loss(loss)) = &event.body { Some(loss.clone()) } else { None })
        .collect()
}

fn numbers(names: std::ops::Range<u32>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}

/// Pushes on until something is stored again; returns behind which number.
fn eventually_takes(spool: &Spool, from: u32) -> u64 {
    let before = spool.handle().stats().stored_events;
    for number in from..from + 1000 {
        push_secrets(spool, number..number + 1);
        if spool.handle().stats().stored_events > before + 1 {
            return u64::from(number) + 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing is stored although the disk has room");
}

/// What a start after a stop finds.
fn reopen(state: &Path) -> (Vec<OpenedBatch>, Spool) {
    let spool = start(state, &settings(), "boot-1");
    (opened(&mut spool.outbox()), spool)
}

#[test]
fn a_restart_continues_the_chain_and_a_new_boot_counts_from_one() {
    let state = tempfile::tempdir().unwrap();
    for (boot, names) in [("boot-1", 0..25), ("boot-1", 25..30), ("boot-2", 30..40)] {
        let spool = start(state.path(), &settings(), boot);
        push_secrets(&spool, names.clone());
        let done = spool.shutdown(PATIENCE);
        assert_eq!((done.stored_events, done.lost_events), (names.len() as u64, 0));
    }
    let (batches, spool) = reopen(state.path());
    assert_one_chain(&batches);
    assert_eq!(secrets(&batches), numbers(0..40));
    let last = batches.last().unwrap();
    assert_eq!((last.header.boot_id.as_str(), last.header.last_sequence), ("boot-2", 10));
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn a_full_batch_is_published_at_once_and_a_partial_one_after_the_interval() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &config::Spool { batch_interval_ms: 60_000, ..settings() }, "boot-1");
    let mut outbox = spool.outbox();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    push_secrets(&spool, 0..10);
    assert!(runtime.block_on(outbox.changed()));
    assert_eq!(opened(&mut outbox).len(), 1);
    let _ = spool.shutdown(PATIENCE);

    let spool = start(state.path(), &settings(), "boot-1");
    let mut outbox = spool.outbox();
    push_secrets(&spool, 10..13);
    assert!(runtime.block_on(outbox.changed()));
    assert_eq!(secrets(&opened(&mut outbox)).last().map(String::as_str), Some("12"));
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn acknowledged_batches_are_not_sent_again_and_their_files_go() {
    let state = tempfile::tempdir().unwrap();
    let small = config::Spool { segment_bytes: 4096, ..settings() };
    let spool = start(state.path(), &small, "boot-1");
    push_secrets(&spool, 0..1000);
    let full = spool.shutdown(PATIENCE).bytes;

    let spool = start(state.path(), &small, "boot-1");
    let mut outbox = spool.outbox();
    let mut last = None;
    while let Some(outgoing) = outbox.read_next().unwrap() {
        last = Some(outgoing);
    }
    outbox.acknowledge(last.unwrap().index);
    assert!(outbox.is_delivered());
    let left = spool.shutdown(PATIENCE).bytes;
    assert!(left < 10_000 && full > 40_000, "{full} bytes became {left}");

    let spool = start(state.path(), &small, "boot-1");
    let mut outbox = spool.outbox();
    assert!(outbox.read_next().unwrap().is_none());
    push_secrets(&spool, 1000..1001);
    let _ = spool.shutdown(PATIENCE);
    let next = opened(&mut outbox);
    assert_eq!(next[0].header.first_sequence, 1001, "the chain's head outlived its files");
}

#[test]
fn a_lost_position_only_means_sending_again() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &settings(), "boot-1");
    push_secrets(&spool, 0..30);
    let _ = spool.shutdown(PATIENCE);
    let (batches, spool) = reopen(state.path());
    let mut outbox = spool.outbox();
    outbox.rewind();
    let first = outbox.read_next().unwrap().unwrap();
    outbox.acknowledge(first.index);
    let directory = spool.directory.clone();
    let _ = spool.shutdown(PATIENCE);
    assert_eq!(position::read(&directory), 1);
    fs::write(directory.join("acknowledged"), "damaged").unwrap();
    let (again, spool) = reopen(state.path());
    assert_eq!(again, batches);
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn behind_damage_the_host_says_that_batches_are_lost_and_goes_on() {
    let state = tempfile::tempdir().unwrap();
    // Each start syncs on its own: only what was synced can be damaged, the rest is an unfinished end.
    let mut file = None;
    for round in 0..6 {
        let spool = start(state.path(), &settings(), "boot-1");
        push_secrets(&spool, round * 10..(round + 1) * 10);
        file = Some(spool.directory.join("records/00000000000000000000.seg"));
        let _ = spool.shutdown(PATIENCE);
    }
    let file = file.unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&file, &bytes).unwrap();

    let spool = start(state.path(), &settings(), "boot-1");
    let mut outbox = spool.outbox();
    for _attempt in 0..2 {
        outbox.rewind();
        let (mut chain, mut damages, mut lost) = (Chain::default(), 0, 0);
        while outbox.has_more() {
            match outbox.read_next() {
                Ok(Some(outgoing)) => {
                    let batch = batch::open(&outgoing.batch, &HostKey::from_seed(&SEED).public()).unwrap();
                    assert_eq!(batch.behind_loss, damages == 1 && lost == 0);
                    lost += u32::from(chain.accept(&batch) == Ok(Accepted::NewBehindLoss));
                    assert_eq!(chain.head().number, outgoing.number);
                }
                Err(OutboxError::Damaged(_)) => damages += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((damages, lost), (1, 1));
        assert_eq!(chain.head().last_sequence, 60, "what stands behind the damage was not read");
    }
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn a_kill_at_any_byte_loses_only_the_unfinished_batch_and_the_chain_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &settings(), "boot-1");
    push_secrets(&spool, 0..30);
    let directory = spool.directory.clone();
    let _ = spool.shutdown(PATIENCE);
    let file = directory.join("records/00000000000000000000.seg");
    let whole = fs::read(&file).unwrap();

    for length in (0..=whole.len()).step_by(101).chain([whole.len() - 1, whole.len()]) {
        fs::write(&file, &whole[..length]).unwrap();
        let (kept, spool) = reopen(state.path());
        let kept = secrets(&kept);
        assert_eq!(kept, numbers(0..u32::try_from(kept.len()).unwrap()), "cut at {length}");
        push_secrets(&spool, 100..105);
        let _ = spool.shutdown(PATIENCE);
        let (batches, spool) = reopen(state.path());
        assert_one_chain(&batches);
        assert_eq!(secrets(&batches), [kept, numbers(100..105)].concat(), "cut at {length}");
        let _ = spool.shutdown(PATIENCE);
    }
}

#[test]
fn what_the_queue_cannot_take_is_counted_and_signed() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &config::Spool { batch_events: 200, ..settings() }, "boot-1");
    let pushed = 60_000;
    let handle = spool.handle();
    let thread = thread::spawn(move || {
        for _ in 0..pushed {
            handle.push(secret("x"));
        }
    });
    thread.join().unwrap();
    let mut oversized = secret("x");
    oversized.job = Some(buildtrail_proto::v1::Job { workflow: "w".repeat(1 << 20), ..Default::default() });
    thread::sleep(Duration::from_millis(300));
    spool.handle().push(oversized);
    let handle = spool.handle();
    let done = spool.shutdown(PATIENCE);
    handle.push(secret("too late"));
    assert_eq!(handle.stats().lost_events, done.lost_events + 1);

    let (batches, spool) = reopen(state.path());
    let kept = secrets(&batches).len() as u64;
    let reported = losses(&batches);
    assert_eq!(kept + done.lost_events, pushed + 1);
    assert_eq!(reported.iter().map(|loss| loss.count).sum::<u64>(), done.lost_events);
    assert!(
        reported.iter().any(
            |loss| loss.reason == "event too large" && loss.kinds == [("secret.access".into(), 1)].into()
        )
    );
    let _ = spool.shutdown(PATIENCE);
}

#[test]
fn a_clock_set_to_nonsense_costs_the_time_and_not_the_event() {
    let state = tempfile::tempdir().unwrap();
    let spool = start(state.path(), &settings(), "boot-1");
    for seconds in [-1, 1, i64::MAX] {
        let time = Some(buildtrail_proto::Timestamp { seconds, nanos: 0 });
        spool.handle().push(AuditEvent { time, ..secret("x") });
    }
    let mut outbox = spool.outbox();
    let _ = spool.shutdown(PATIENCE);
    let batches = opened(&mut outbox);
    let kept: Vec<_> =
        batches.iter().flat_map(|batch| &batch.events).map(|event| event.time.is_some()).collect();
    assert_eq!(kept, [false, true, false]);
}

#[test]
fn losses_in_the_kernel_stand_in_the_header_and_survive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    for (boot, expected) in [("boot-1", 5), ("boot-1", 10), ("boot-2", 5)] {
        let spool = start(state.path(), &settings(), boot);
        spool.handle().count_lost_in_kernel(5);
        push_secrets(&spool, 0..1);
        let mut outbox = spool.outbox();
        let _ = spool.shutdown(PATIENCE);
        assert_eq!(opened(&mut outbox).last().unwrap().header.lost_in_kernel, expected);
    }
}

#[test]
#[ignore = "needs root: mounts a small file system in a mount namespace of its own"]
fn a_full_disk_costs_what_is_reported_and_nothing_twice() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_owned();
    // The namespace, and with it the mount, goes when this thread and the spool's have ended.
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
        let spool = start(&path, &config::Spool { min_free_bytes: 0, ..settings() }, "boot-1");
        push_secrets(&spool, 0..5);
        thread::sleep(Duration::from_millis(100));
        // A partial write of the filler is the aim.
        let _ = fs::write(path.join("filler"), vec![0; 256 * 1024]);
        push_secrets(&spool, 5..2000);
        thread::sleep(Duration::from_millis(300));
        let before = spool.handle().stats();
        assert!((5..2000).contains(&before.stored_events), "{before:?}: the disk did not fill up");
        fs::remove_file(path.join("filler")).unwrap();
        let pushed = eventually_takes(&spool, 2000);
        let mut outbox = spool.outbox();
        let done = spool.shutdown(PATIENCE);
        let batches = opened(&mut outbox);
        assert_one_chain(&batches);
        let kept = secrets(&batches);
        let numbers: std::collections::BTreeSet<u32> =
            kept.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(numbers.len(), kept.len(), "nothing is there twice");
        let reported: u64 = losses(&batches).iter().map(|loss| loss.count).sum();
        assert_eq!(reported, done.lost_events);
        assert_eq!(kept.len() as u64 + reported, pushed, "{done:?}");
    })
    .join()
    .unwrap();
}
