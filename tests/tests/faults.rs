//! Networks that fail, disks that are full, clocks that jump, collectors that are away: afterwards everything is in the
//! store once, or exactly what is not stands in a signed loss.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{path::Path, thread, time::Duration};

use buildtrail_proto::v1::Loss;
use buildtrail_tests::{
    collector::{Collector, Site},
    lab::Lab,
    proxy::{Mode, Proxy},
    random::Random,
    source::{Progress, Source, account},
};

/// What `buildtrail verify` ends with when nothing was altered and something was lost.
const INTACT_BUT_INCOMPLETE: i32 = 5;
const DEADLINE: Duration = Duration::from_mins(3);
const QUICK: &str = "batch_interval_ms = 10\nbatch_events = 50\nsegment_bytes = 65536\n";
/// Room for all of it, and the smallest file systems are not left out.
const SMALL_DISK: &str = "min_free_bytes = 1048576\nmax_bytes = 67108864\nsegment_bytes = 1048576\n";

fn arguments(count: u64, more: &[&str]) -> Vec<String> {
    let fixed = ["--count", &count.to_string(), "--deliver"];
    fixed.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

fn start_source(site: &Site, address: &str, spool: &str, count: u64, more: &[&str]) -> Source {
    let arguments = arguments(count, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Source::start(site, address, spool, &arguments).unwrap()
}

/// Everything that was pushed is in the store, once, or in a loss.
fn settle(collector: Collector, pushed: u64, said: Progress) -> Vec<Loss> {
    collector.wait_for_events_of_jobs(pushed - said.given_up - said.lost, DEADLINE).unwrap();
    let losses = account(&collector.all_events().unwrap(), pushed).unwrap();
    let verdict = collector.ask_for_verdict(&["verify"]).unwrap();
    let code = if losses.is_empty() { 0 } else { INTACT_BUT_INCOMPLETE };
    assert_eq!(verdict.status.code(), Some(code), "{}{}", verdict.text(), verdict.errors());
    collector.stop().unwrap();
    losses
}

/// A collector behind a network that can fail.
struct Behind {
    site: Site,
    collector: Collector,
    proxy: Proxy,
}

impl Behind {
    fn start(directory: &Path) -> Self {
        let site = Site::prepare(directory).unwrap();
        let collector = site.start("127.0.0.1:0", false).unwrap();
        let proxy = Proxy::start(collector.address.parse().unwrap()).unwrap();
        Self { site, collector, proxy }
    }

    fn source(&self, count: u64, more: &[&str]) -> Source {
        start_source(&self.site, &self.proxy.address.to_string(), QUICK, count, more)
    }

    fn settle(self, source: Source, pushed: u64) {
        let said = source.wait_until_delivered(DEADLINE).unwrap();
        assert_eq!((said.lost, said.given_up), (0, 0));
        assert_eq!(settle(self.collector, pushed, said), []);
    }
}

#[test]
fn a_slow_network_delivers_everything_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let behind = Behind::start(directory.path());
    behind.proxy.set(Mode::Slow);
    let source = behind.source(600, &[]);
    behind.settle(source, 600);
}

#[test]
fn a_connection_that_went_silent_is_given_up_and_nothing_is_lost_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let behind = Behind::start(directory.path());
    let mut source = behind.source(3000, &["--rate", "500"]);
    source.wait_until("half of it", DEADLINE, |said| said.stored > 1500).unwrap();
    let before = behind.proxy.connections();
    behind.proxy.set(Mode::HalfOpen);
    source.wait_until("another connection", DEADLINE, |_| behind.proxy.connections() > before).unwrap();
    // What was under way on the silent one arrives now, beside the new one.
    behind.proxy.set(Mode::Open);
    behind.settle(source, 3000);
}

#[test]
fn a_flapping_network_delivers_everything_once() {
    let mut random = Random::announced();
    let directory = tempfile::tempdir().unwrap();
    let behind = Behind::start(directory.path());
    let source = behind.source(10_000, &["--rate", "1000"]);
    for _ in 0..30 {
        thread::sleep(Duration::from_millis(20 + random.below(400)));
        behind.proxy.set(if random.below(3) == 0 { Mode::HalfOpen } else { Mode::Closed });
        thread::sleep(Duration::from_millis(random.below(200)));
        behind.proxy.set(Mode::Open);
    }
    assert!(behind.proxy.connections() > 5, "{} connections", behind.proxy.connections());
    behind.settle(source, 10_000);
}

#[test]
fn a_link_that_is_cut_again_and_again_delivers_everything_once() {
    let mut random = Random::announced();
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::start(directory.path()).unwrap();
    let site = Site::prepare(directory.path()).unwrap().in_namespaces_of(lab.pid());
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let source = start_source(&site, &collector.address, QUICK, 8000, &["--rate", "1000"]);
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(100 + random.below(600)));
        lab.set_link(false).unwrap();
        thread::sleep(Duration::from_millis(200 + random.below(1500)));
        lab.set_link(true).unwrap();
    }
    let said = source.wait_until_delivered(DEADLINE).unwrap();
    assert_eq!((said.lost, said.given_up), (0, 0));
    assert_eq!(settle(collector, 8000, said), []);
}

#[test]
fn a_full_disk_under_the_agent_costs_its_oldest_bulk_and_says_so_exactly() {
    const COUNT: u64 = 120_000;
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::start(directory.path()).unwrap();
    let state = directory.path().join("agent-state");
    lab.mount_small_disk(&state, 16).unwrap();
    let site = Site::prepare(directory.path()).unwrap().in_namespaces_of(lab.pid());
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let address = collector.address.clone();
    collector.stop().unwrap();
    let mut source = start_source(&site, &address, SMALL_DISK, COUNT, &[]);
    source.wait_until("the disk to be full", DEADLINE, |said| said.given_up > 0).unwrap();
    // Others take the rest of the disk for a while.
    let filler = state.join("filler").display().to_string();
    lab.fill(&filler).unwrap();
    source.wait_until("all events", DEADLINE, |said| said.stored + said.lost >= COUNT / 2).unwrap();
    lab.run("rm", &[&filler]).unwrap();
    source.wait_until("all events", DEADLINE, |said| said.stored + said.lost >= COUNT).unwrap();

    let collector = site.start(&address, false).unwrap();
    let said = source.wait_until_delivered(DEADLINE).unwrap();
    let losses = settle(collector, COUNT, said);
    println!("{COUNT} events, {} given up, {} refused, {} reports", said.given_up, said.lost, losses.len());
    let lost_secrets: u64 = losses.iter().filter_map(|loss| loss.kinds.get("secret.access")).sum();
    assert!(said.given_up > 0 && lost_secrets < said.given_up / 3, "{lost_secrets} secrets among {said:?}");
}

#[test]
fn an_hour_without_a_collector_is_made_up_for() {
    // 50 events a second.
    const COUNT: u64 = 180_000;
    let directory = tempfile::tempdir().unwrap();
    let site = Site::prepare(directory.path()).unwrap();
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let address = collector.address.clone();
    collector.stop().unwrap();
    let mut source = start_source(&site, &address, "", COUNT, &["--spacing", "20000000"]);
    source.wait_until("an hour's events", DEADLINE, |said| said.stored >= COUNT).unwrap();
    let collector = site.start(&address, false).unwrap();
    let said = source.wait_until_delivered(DEADLINE).unwrap();
    assert_eq!((said.lost, said.given_up), (0, 0));
    assert_eq!(settle(collector, COUNT, said), []);
}

#[test]
fn a_clock_that_jumps_by_days_changes_no_order_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::prepare(directory.path()).unwrap();
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let jumps = ["--clock", "1000:86400", "--clock", "2000:-86400", "--clock", "3000:0"];
    let source = start_source(&site, &collector.address, QUICK, 4000, &jumps);
    let said = source.wait_until_delivered(DEADLINE).unwrap();
    assert_eq!((said.lost, said.given_up), (0, 0));
    assert_eq!(settle(collector, 4000, said), []);
}
