//! Agent and collector together: what was captured arrives, whatever happens to the collector.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use buildtrail_proto::v1::AuditEvent;
use buildtrail_tests::{
    agent::Agent,
    collector::{HOST, Site, agent_settings},
    events::{self, describe_all},
    fakerunner::{self, Job, Plan},
    scene::make_home,
};

const DELIVERY_DEADLINE: Duration = Duration::from_mins(1);

fn run_jobs(directory: &Path, home: &Path, numbers: std::ops::Range<usize>) {
    let job = |number: usize| {
        Job::new("acme/delivered", &number.to_string(), "read", "cat \"$HOME/.npmrc\" > /dev/null\n")
    };
    let plan = Plan { at_once: 1, jobs: numbers.map(job).collect() };
    let mut runner = fakerunner::start(directory, home, &plan).unwrap();
    assert!(runner.wait(Duration::from_secs(30)).unwrap().success(), "{}", runner.tail(20));
}

#[test]
fn everything_arrives_once_and_in_order_although_the_collector_was_away() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let site = Site::prepare(directory.path()).unwrap();
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let address = collector.address.clone();
    let agent = Agent::start_with_collector(&agent_settings(&site, &address, &home), false).unwrap();

    run_jobs(directory.path(), &home, 0..5);
    collector.wait_for_finished_jobs(5, DELIVERY_DEADLINE).unwrap();
    collector.stop().unwrap();
    run_jobs(directory.path(), &home, 5..15);
    let collector = site.start(&address, false).unwrap();
    let jobs = collector.wait_for_finished_jobs(15, DELIVERY_DEADLINE).unwrap();

    let runs: BTreeSet<&str> =
        jobs.iter().filter_map(|summary| summary.job.as_ref()).map(|job| job.run_id.as_str()).collect();
    assert_eq!((jobs.len(), runs.len()), (15, 15));
    let (status, _) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");

    let mut events: Vec<AuditEvent> = collector.all_events().unwrap();
    // They are listed in the order in which they happened.
    events.sort_by_key(|event| event.sequence);
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.host_id, events[0].host_id);
        assert_eq!(event.sequence, number, "{}", describe_all(&events));
    }
    assert_eq!(events::lost(&events), 0);
    let verdict = collector.ask(&["verify"]).unwrap().text();
    assert!(verdict.contains(&format!("{HOST}: ")) && verdict.contains("complete"), "{verdict}");
    collector.stop().unwrap();
}
