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

const SECRETS: usize = 1000;
/// What each hook counted since load: happened, emitted, lost.
type Counts = BTreeMap<String, [u64; 3]>;

struct Observed {
    events: Vec<AuditEvent>,
    counts: Counts,
}

/// Runs a job of one step that opens, forks and reads at the same time for `seconds`.
fn observe(directory: &Path, seconds: u64, settings: &str) -> Observed {
    let home = make_home(directory).unwrap();
    let secrets = directory.join("many");
    make_secrets(&secrets, SECRETS).unwrap();
    let catalog = format!(
        "[[catalog.files]]\nname = \"one of many\"\nfamily = \"many\"\npath = \"{}/*.key\"\n{settings}",
        secrets.display()
    );
    let agent = Agent::start_with_json(&Settings::new(directory, &home).with(&catalog)).unwrap();
    let evasion = paths::binary("evasion").unwrap();
    let script = format!(
        "e={evasion}; $e load opens {seconds} 200000 > opens & $e load forks {seconds} > forks &\n\
         $e load reads {secrets} {SECRETS} {seconds}; wait\n\
         echo \"opens: $(cat opens), processes: $(cat forks)\" > {report}\n",
        evasion = evasion.display(),
        secrets = secrets.display(),
        report = directory.join("report").display(),
    );
    let plan = Plan { at_once: 1, jobs: vec![Job::new("acme/load", "1", "load", &script)] };
    let mut runner = fakerunner::start(directory, &home, &plan).unwrap();
    assert!(runner.wait(Duration::from_secs(seconds * 3 + 60)).unwrap().success(), "{}", runner.tail(20));
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
    let observed = observe(directory.path(), 30, "");
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
    let observed = observe(directory.path(), 5, small);
    assert_that_counts_add_up(&observed);
}
