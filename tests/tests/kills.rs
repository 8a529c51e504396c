//! Agent and collector, killed at any time under load: what was on the host's disk arrives, once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{thread, time::Duration};

use buildtrail_tests::{
    collector::{Collector, Site},
    random::Random,
    source::{Source, numbers},
};

const ROUNDS: u64 = 200;
/// Numbers that each start of the source has for itself.
const SPAN: u64 = 1_000_000;
const SPOOL: &str = "batch_interval_ms = 10\nbatch_events = 50\nsegment_bytes = 65536\n";
const DEADLINE: Duration = Duration::from_mins(2);

fn start_source(site: &Site, address: &str, run: u64) -> Source {
    let first = (run * SPAN).to_string();
    Source::start(site, address, SPOOL, &["--first", &first, "--count", "1000000", "--rate", "1500"]).unwrap()
}

#[test]
fn two_hundred_kills_lose_nothing_that_was_on_disk_and_double_nothing() {
    let mut random = Random::announced();
    let directory = tempfile::tempdir().unwrap();
    let site = Site::prepare(directory.path()).unwrap();
    let mut collector = site.start("127.0.0.1:0", false).unwrap();
    let address = collector.address.clone();
    // What each start of the source knew to be on its disk.
    let mut stored = Vec::new();
    let mut source = start_source(&site, &address, 0);
    for _ in 0..ROUNDS {
        thread::sleep(Duration::from_millis(random.below(200)));
        let victim = random.below(10);
        if victim < 6 {
            stored.push(source.kill().unwrap());
            source = start_source(&site, &address, stored.len() as u64);
        }
        if victim >= 4 {
            collector.kill().unwrap();
            collector = site.start(&address, false).unwrap();
        }
    }
    stored.push(source.kill().unwrap());
    let first = (stored.len() as u64 * SPAN).to_string();
    let last =
        Source::start(&site, &address, SPOOL, &["--first", &first, "--count", "100", "--deliver"]).unwrap();
    stored.push(last.wait_until_delivered(DEADLINE).unwrap());

    let total: u64 = stored.iter().map(|said| said.stored).sum();
    collector.wait_for_events_of_jobs(total, DEADLINE).unwrap();
    let events = collector.all_events().unwrap();
    let arrived = numbers(&events).unwrap();
    assert!(stored.iter().all(|said| said.lost == 0 && said.given_up == 0), "{stored:?}");
    for (run, said) in (0..).zip(&stored) {
        let numbers: Vec<u64> = arrived.range(run * SPAN..(run + 1) * SPAN).copied().collect();
        assert!(
            numbers.len() as u64 >= said.stored,
            "run {run}: {} of {} arrived",
            numbers.len(),
            said.stored
        );
        assert!(numbers.iter().copied().eq((run * SPAN..).take(numbers.len())), "run {run} has a hole");
    }
    println!("{ROUNDS} kills, {} starts of the source, {total} events known to be on disk", stored.len());
    assert!(total > ROUNDS, "there was no load");
    verify(&site, collector);
}

/// The collector, and then without it its log.
fn verify(site: &Site, collector: Collector) {
    let verdict = collector.ask(&["verify"]).unwrap().text();
    assert!(verdict.contains(": complete"), "{verdict}");
    collector.stop().unwrap();
    let log = site.data().join("log").display().to_string();
    let verdict = site
        .launch("verify", "buildtrail")
        .unwrap()
        .args(["verify", "--log", &log])
        .run_successfully(DEADLINE)
        .unwrap();
    assert!(verdict.text().contains(": complete"), "{}", verdict.text());
}
