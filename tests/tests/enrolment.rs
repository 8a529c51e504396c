//! A host that gets its identity by a token, at its first start, and loses it by revocation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use buildtrail_tests::{
    agent::{Agent, Settings},
    collector::Site,
    fakerunner::{self, Job, Plan},
    scene::make_home,
};

const DEADLINE: Duration = Duration::from_mins(1);

fn run_job(directory: &Path, home: &Path, number: usize) {
    let job = Job::new("acme/enrolled", &number.to_string(), "read", "cat \"$HOME/.npmrc\" > /dev/null\n");
    let mut runner = fakerunner::start(directory, home, &Plan { at_once: 1, jobs: vec![job] }).unwrap();
    assert!(runner.wait(Duration::from_secs(30)).unwrap().success(), "{}", runner.tail(20));
}

#[test]
fn a_host_enrols_at_its_first_start_and_is_cut_off_when_it_is_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let site = Site::prepare(directory.path()).unwrap();
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let lines = site.enrolling_lines(&collector, "first-boot").unwrap();
    let settings = Settings::new(directory.path(), &home).with(&lines);
    let mut agent = Agent::start_with_collector(&settings, false).unwrap();
    run_job(directory.path(), &home, 1);
    collector.wait_for_finished_jobs(1, DEADLINE).unwrap();
    let identity = directory.path().join("agent-state/identity.pem");
    assert_eq!(identity.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let hosts = collector.administer(&["enrol", "hosts"]).unwrap().text();
    assert!(hosts.contains("first-boot") && hosts.contains("active") && hosts.contains("yes"), "{hosts}");

    let revoked = Instant::now();
    collector.administer(&["enrol", "revoke", "first-boot"]).unwrap();
    agent.wait_until_it_says("an administrator revoked this host", DEADLINE).unwrap();
    eprintln!("cut off {:?} after the order", revoked.elapsed());
    run_job(directory.path(), &home, 2);
    let hosts = collector.administer(&["enrol", "hosts"]).unwrap().text();
    assert!(hosts.contains("revoked") && !hosts.contains("yes"), "{hosts}");
    let (status, _) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");
    assert_eq!(collector.jobs().unwrap().len(), 1, "nothing of a revoked host is taken");
    let verdict = collector.ask(&["verify"]).unwrap().text();
    assert!(verdict.contains("complete"), "{verdict}");
    let acts = collector.ask(&["acts"]).unwrap().text();
    for act in ["token.created", "host.enrolled", "certificate.revoked"] {
        assert!(acts.contains(act), "{acts}");
    }
    collector.stop().unwrap();
}
