//! A thousand jobs after each other and fifty at once on one host: every event on its own job, and nothing is kept of them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "how a test fails; figures for people"
)]

use std::{collections::HashMap, path::Path, time::Duration};

use buildtrail_proto::v1::{AuditEvent, Heartbeat, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{describe, describe_all, finished_jobs, is_access_to, lost},
    fakerunner::{self, Job, Plan},
    scene::make_home,
};

const IN_SEQUENCE: usize = 1000;
const AT_ONCE: usize = 50;
/// Every so many a job leaves a process behind.
const LEAVES: usize = 20;
const PATIENCE: Duration = Duration::from_mins(5);

fn job(index: usize) -> Job {
    let leaves = if index.is_multiple_of(LEAVES) {
        format!("(setsid sh -c 'sleep 1; exec /bin/true tag {index}' > /dev/null 2>&1 &)\n")
    } else {
        String::new()
    };
    let script = format!("{leaves}/bin/true tag {index}\nexec cat \"$HOME/.npmrc\" > /dev/null\n");
    Job::new(&format!("acme/job-{index}"), &index.to_string(), "read", &script)
}

fn run(directory: &Path, home: &Path, at_once: usize, jobs: std::ops::Range<usize>) {
    let plan = Plan { at_once, jobs: jobs.map(job).collect() };
    let mut runner = fakerunner::start(directory, home, &plan).unwrap();
    assert!(runner.wait(PATIENCE).unwrap().success(), "{}", runner.tail(20));
}

/// Resident memory in KiB.
fn memory(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn run_of(event: &AuditEvent) -> &str {
    event.job.as_ref().map_or("no job", |job| &job.run_id)
}

fn tag_of(event: &AuditEvent) -> Option<&str> {
    match &event.body {
        Some(Body::ProcessExec(exec)) if exec.argv.get(1).is_some_and(|word| word == "tag") => {
            exec.argv.get(2).map(String::as_str)
        }
        _ => None,
    }
}

fn last_heartbeat(events: &[AuditEvent]) -> Heartbeat {
    let beat = |event: &AuditEvent| match &event.body {
        Some(Body::Heartbeat(beat)) => Some(*beat),
        _ => None,
    };
    events.iter().rev().find_map(beat).unwrap()
}

#[test]
fn a_thousand_jobs_in_sequence_and_fifty_at_once_keep_their_events_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let agent = Agent::start_with_json(&Settings::new(directory.path(), &home)).unwrap();
    // Warm: what is only built once is there.
    run(directory.path(), &home, 10, 0..100);
    let before = memory(&agent);
    run(directory.path(), &home, 1, 100..100 + IN_SEQUENCE);
    run(directory.path(), &home, AT_ONCE, 100 + IN_SEQUENCE..100 + IN_SEQUENCE + AT_ONCE);
    let jobs = 100 + IN_SEQUENCE + AT_ONCE;
    let tags = jobs + jobs.div_ceil(LEAVES);
    agent
        .wait_for("all jobs and what they left", PATIENCE, |events| {
            finished_jobs(events).count() >= jobs && events.iter().filter_map(tag_of).count() >= tags
        })
        .unwrap();
    println!("agent's memory: {before} KiB after 100 jobs, {} KiB after {jobs}", memory(&agent));
    // What has ended is forgotten within some seconds, without anything that happens.
    std::thread::sleep(Duration::from_secs(20));
    println!("and {} KiB some seconds later", memory(&agent));
    let (_, events) = agent.stop().unwrap();

    assert_eq!(lost(&events), 0);
    let mut found: HashMap<&str, usize> = HashMap::new();
    for event in &events {
        if let Some(tag) = tag_of(event) {
            assert_eq!(run_of(event), tag, "{}", describe(event));
            *found.entry(tag).or_default() += 1;
        }
    }
    for index in 0..jobs {
        let expected = if index.is_multiple_of(LEAVES) { 2 } else { 1 };
        assert_eq!(found.get(index.to_string().as_str()), Some(&expected), "job {index}");
    }
    let npmrc = home.join(".npmrc").display().to_string();
    let accesses: Vec<&AuditEvent> = events.iter().filter(|event| is_access_to(event, &npmrc)).collect();
    let mut runs: Vec<&str> = accesses.iter().map(|event| run_of(event)).collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), jobs, "{}", describe_all(accesses.into_iter().take(20)));
    assert!(!runs.contains(&"no job"));
    assert_eq!(finished_jobs(&events).count(), jobs);

    let beat = last_heartbeat(&events);
    println!("{beat:?}");
    assert_eq!((beat.running_jobs, beat.jobs_with_leftovers), (0, 0));
    // The runners' own files in their workspaces are remembered up to a bound that does not grow with the jobs.
    assert!(beat.files_remembered <= 40_960, "{beat:?}");
}
