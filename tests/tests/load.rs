//! What is reported when a job does far more than anyone watches.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]
#![allow(clippy::print_stdout, reason = "how much load there was is part of the result")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    time::Duration,
};

use buildtrail_evasion::load::make_secrets;
use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{finished_jobs, step_of},
    fakerunner::{self, Job, Plan},
    paths,
    scene::make_home,
};
use nix::sys::signal::Signal;

const SECRETS: usize = 1000;
/// What is tried; how many there were is printed.
const OPENS_A_SECOND: usize = 200_000;
/// What each hook counted since load: happened, emitted, lost.
type Counts = BTreeMap<String, [u64; 3]>;

struct Observed {
    events: Vec<AuditEvent>,
    counts: Counts,
}

/// Runs a job of one step that opens, forks and reads at the same time for `seconds`; as many processes open as there are
/// processors.
fn flood(directory: &Path, seconds: u64, settings: &str) -> Observed {
    let processors = std::thread::available_parallelism().unwrap().get();
    let script = format!(
        "for n in $(seq {processors}); do $e load opens {seconds} {rate} > opens-$n & done\n\
         $e load forks {seconds} > forks & $e load reads $secrets {SECRETS} {seconds}; wait\n\
         echo \"unwatched opens: $(($(cat opens-* | paste -sd+))) in {seconds} s, processes: $(cat forks)\" > $report\n",
        rate = OPENS_A_SECOND / processors,
    );
    observe(directory, &script, settings, |_| std::thread::sleep(Duration::from_secs(seconds)))
}

/// Runs a job of one step, and `meanwhile` beside it.
fn observe(directory: &Path, script: &str, settings: &str, meanwhile: impl FnOnce(&Agent)) -> Observed {
    let home = make_home(directory).unwrap();
    let secrets = directory.join("many");
    make_secrets(&secrets, SECRETS).unwrap();
    let catalog = format!(
        "[[catalog.files]]\nname = \"one of many\"\nfamily = \"many\"\npath = \"{}/*.key\"\n{settings}",
        secrets.display()
    );
    let agent = Agent::start_with_json(&Settings::new(directory, &home).with(&catalog)).unwrap();
    let script = format!(
        "e={evasion}; secrets={secrets}; report={report}\n{script}",
        evasion = paths::binary("evasion").unwrap().display(),
        secrets = secrets.display(),
        report = directory.join("report").display(),
    );
    let plan = Plan { at_once: 1, jobs: vec![Job::new("acme/load", "1", "load", &script)] };
    let mut runner = fakerunner::start(directory, &home, &plan).unwrap();
    meanwhile(&agent);
    assert!(runner.wait(Duration::from_mins(3)).unwrap().success(), "{}", runner.tail(20));
    agent
        .wait_for("the job's end", Duration::from_mins(2), |events| finished_jobs(events).count() == 1)
        .unwrap();
    let (_, events) = agent.stop().unwrap();
    let counts = counts_in(&fs::read_to_string(directory.join("logs/agent.err")).unwrap());
    println!("{}{counts:?}", fs::read_to_string(directory.join("report")).unwrap());
    Observed { events, counts }
}

/// `… seen by a hook hook="x" happened=3 emitted=2 lost=1`
fn counts_in(log: &str) -> Counts {
    let value = |line: &str, key: &str| -> Option<String> {
        Some(line.split_once(key)?.1.split_whitespace().next()?.trim_matches('"').to_owned())
    };
    let number = |line: &str, key: &str| value(line, key)?.parse::<u64>().ok();
    log.lines()
        .filter(|line| line.contains("seen by a hook"))
        .filter_map(|line| {
            let counts = [number(line, "happened=")?, number(line, "emitted=")?, number(line, "lost=")?];
            Some((value(line, "hook=")?, counts))
        })
        .collect()
}

/// Losses in the kernel, by hook, as events tell them.
fn told(events: &[AuditEvent]) -> BTreeMap<String, u64> {
    let mut told = BTreeMap::new();
    for event in events {
        if let Some(Body::Loss(loss)) = &event.body {
            *told.entry(loss.stage.clone()).or_default() += loss.count;
        }
    }
    told
}

fn assert_that_counts_add_up(observed: &Observed) {
    assert!(!observed.counts.is_empty(), "the agent did not say what its hooks counted");
    let told = told(&observed.events);
    for (hook, [happened, emitted, lost]) in &observed.counts {
        assert_eq!(*happened, emitted + lost, "{hook}: happened = emitted + lost");
        assert_eq!(told.get(hook).copied().unwrap_or_default(), *lost, "{hook}: losses told by events");
    }
}

#[test]
fn a_flood_of_opens_and_processes_hides_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let observed = flood(directory.path(), 30, "");
    let paths: HashSet<&str> = observed
        .events
        .iter()
        .filter(|event| step_of(event) == "load")
        .filter_map(|event| match &event.body {
            Some(Body::SecretAccess(access)) if access.family == "many" => Some(access.path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(paths.len(), SECRETS);
    assert_that_counts_add_up(&observed);
}

#[test]
fn what_a_small_buffer_cannot_take_is_counted_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let small = "[sensor]\ncritical_ring_bytes = 65536\nbulk_ring_bytes = 65536\n";
    let observed = flood(directory.path(), 5, small);
    assert_that_counts_add_up(&observed);
}

#[test]
fn what_is_dropped_while_the_agent_stands_still_is_told_number_by_number() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo \"connections: $($e load connections 12)\" > $report\n";
    let small = "[sensor]\nbulk_ring_bytes = 65536\n";
    let observed = observe(directory.path(), script, small, |agent| {
        std::thread::sleep(Duration::from_secs(3));
        agent.signal(Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        agent.signal(Signal::SIGCONT).unwrap();
    });
    assert_that_counts_add_up(&observed);
    let ranges = ranges(&observed.events);
    for hook in ["connect.ipv4", "tcp.state"] {
        let lost = observed.counts[hook][2];
        assert!(lost > 0, "{hook}: the ring took everything, so nothing was tested");
        let told: u64 = ranges[hook].iter().map(|(_, first, last)| last - first + 1).sum();
        assert_eq!(told, lost, "{hook}: numbers that never came");
    }
}

/// Numbers that never came, by hook, each once: processor, first and last.
fn ranges(events: &[AuditEvent]) -> BTreeMap<String, Vec<(u32, u64, u64)>> {
    let mut all: BTreeMap<String, Vec<(u32, u64, u64)>> = BTreeMap::new();
    for event in events {
        if let Some(Body::Loss(loss)) = &event.body {
            let ranges = loss.ranges.iter().map(|range| (range.cpu, range.first, range.last));
            all.entry(loss.stage.clone()).or_default().extend(ranges);
        }
    }
    for (hook, ranges) in &mut all {
        ranges.sort_unstable();
        let apart = |pair: &[(u32, u64, u64)]| pair[0].0 != pair[1].0 || pair[0].2 < pair[1].1;
        assert!(ranges.windows(2).all(apart), "{hook}: a number is told twice: {ranges:?}");
    }
    all
}
