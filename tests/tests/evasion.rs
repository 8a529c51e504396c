//! Every technique of the evasion table, as a step of its own, under the real agent on this machine's own kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{fs, path::Path, process::Command, sync::LazyLock, time::Duration};

use buildtrail_evasion::{
    Family, Seen, Tier,
    judge::{Verdict, judge, outcomes},
    place, techniques,
};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{finished_jobs, lost},
    fakerunner::{self, Job, Plan, Step, Work},
    paths,
    scene::make_home,
};
use serde_json::Value;

const REPOSITORY: &str = "acme/evasion";

/// What the agent said, and how the techniques ended.
struct Observed {
    events: Vec<Value>,
    results: String,
    tier: Tier,
    lost: u64,
}

static OBSERVED: LazyLock<Observed> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let place = directory.path().join("evasion");
    let prepared =
        Command::new(paths::binary("evasion").unwrap()).arg("prepare").arg(&place).status().unwrap();
    assert!(prepared.success(), "evasion prepare ended with {prepared}");

    let settings = Settings::new(directory.path(), &home).with(&place::settings(&place));
    let agent = Agent::start_with_json(&settings).unwrap();
    let mut runner = fakerunner::start(directory.path(), &home, &plan(&place)).unwrap();
    let status = runner.wait(Duration::from_mins(2)).unwrap();
    assert!(status.success(), "{}", runner.tail(20));
    agent
        .wait_for("the end of the job", Duration::from_secs(30), |events| finished_jobs(events).count() == 1)
        .unwrap();
    let (status, events) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");
    let lost = lost(&events);
    let events: Vec<Value> = events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    Observed {
        tier: tier(&events),
        events,
        results: fs::read_to_string(place.join("results")).unwrap(),
        lost,
    }
});

fn plan(place: &Path) -> Plan {
    let step = |name: &str| Step { id: name.to_owned(), work: Work::Script(place::script(place, name)) };
    let steps = techniques().into_iter().map(|technique| step(technique.name)).collect();
    Plan {
        at_once: 1,
        jobs: vec![Job { repository: REPOSITORY.to_owned(), run_id: "1".to_owned(), steps, container: None }],
    }
}

/// As the agent says it itself.
fn tier(events: &[Value]) -> Tier {
    let hooks = events.iter().find_map(|event| event["coverage"]["hooks"].as_array()).unwrap();
    let at_a = |hook: &Value| hook["hook"] == "file.open" && hook["tier"] == "TIER_A";
    if hooks.iter().any(at_a) { Tier::A } else { Tier::B }
}

/// Everything that is not as the table says, of one family.
fn wrong(family: Family) -> Vec<String> {
    let outcomes = outcomes(&OBSERVED.results);
    techniques()
        .into_iter()
        .filter(|technique| technique.family == family)
        .filter_map(|technique| {
            match judge(technique, OBSERVED.tier, &outcomes, &OBSERVED.events, REPOSITORY) {
                Verdict::Wrong(why) => Some(format!("{}: {why}", technique.name)),
                _ => None,
            }
        })
        .collect()
}

fn check(family: Family) {
    let wrong = wrong(family);
    assert!(wrong.is_empty(), "{} at tier {:?}:\n{}", wrong.len(), OBSERVED.tier, wrong.join("\n"));
}

#[test]
fn every_way_to_a_secret_file_is_told_in_its_step() {
    check(Family::Files);
}

#[test]
fn every_way_into_another_process_is_told_in_its_step() {
    check(Family::Memory);
}

#[test]
fn every_way_to_the_network_is_told_in_its_step() {
    check(Family::Network);
}

#[test]
fn no_trick_with_processes_hides_an_access() {
    check(Family::Process);
}

#[test]
fn credentials_are_followed_to_where_variables_say() {
    check(Family::Credentials);
}

#[test]
fn what_is_not_seen_is_in_the_agents_own_list_of_gaps() {
    let gaps = OBSERVED.events.iter().find_map(|event| event["coverage"]["gaps"].as_array()).unwrap();
    let silent = techniques().iter().any(|technique| matches!(technique.at(OBSERVED.tier), Seen::Gap(_)));
    assert!(!silent || !gaps.is_empty(), "techniques go unseen and the agent names no gap");
}

#[test]
fn nothing_is_lost_on_the_way() {
    assert_eq!(OBSERVED.lost, 0);
}
