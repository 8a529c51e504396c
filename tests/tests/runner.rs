//! Jobs of the actions/runner process tree: many short ones, and several at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{collections::HashMap, path::Path, time::Duration};

use buildtrail_proto::v1::AuditEvent;
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{describe_all, finished_jobs, is_access_to, lost, step_of},
    fakerunner::{self, Job, Plan, Step, Work},
    scene::make_home,
};

/// Runs the plan under an agent; everything the agent said.
fn observe(directory: &Path, home: &Path, plan: &Plan) -> Vec<AuditEvent> {
    let agent = Agent::start_with_json(&Settings::new(directory, home)).unwrap();
    let mut runner = fakerunner::start(directory, home, plan).unwrap();
    let status = runner.wait(Duration::from_mins(2)).unwrap();
    assert!(status.success(), "{}", runner.tail(20));
    // Too few is for the assertions to tell, with more detail.
    let _ = agent.wait_for("the end of all jobs", Duration::from_secs(20), |events| {
        finished_jobs(events).count() >= plan.jobs.len()
    });
    let (status, events) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");
    events
}

/// Accesses to the secret at `path`, by the run id of their job.
fn accesses_by_run<'a>(events: &'a [AuditEvent], path: &str) -> HashMap<&'a str, Vec<&'a AuditEvent>> {
    let mut runs: HashMap<&str, Vec<&AuditEvent>> = HashMap::new();
    for event in events.iter().filter(|event| is_access_to(event, path)) {
        let run = event.job.as_ref().map_or("no job", |job| &job.run_id);
        runs.entry(run).or_default().push(event);
    }
    runs
}

#[test]
fn two_hundred_short_jobs_are_all_caught_and_attributed() {
    const JOBS: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let job = |index| {
        Job::new(
            "acme/short",
            &format!("{}", 9000 + index),
            "read",
            "exec cat \"$HOME/.npmrc\" > /dev/null\n",
        )
    };
    let plan = Plan { at_once: 1, jobs: (0..JOBS).map(job).collect() };
    let events = observe(directory.path(), &home, &plan);

    let npmrc = home.join(".npmrc").display().to_string();
    let runs = accesses_by_run(&events, &npmrc);
    let right = plan.jobs.iter().filter(|job| {
        let accesses = runs.get(job.run_id.as_str());
        accesses.is_some_and(|events| events.iter().all(|event| step_of(event) == "read"))
    });
    assert_eq!(right.count(), JOBS, "attributed to:\n{}", describe_all(runs.values().flatten().copied()));
    assert_eq!(runs.len(), JOBS, "accesses outside the jobs: {:?}", runs.get("no job"));
    assert_eq!(finished_jobs(&events).count(), JOBS);
    assert_eq!(lost(&events), 0);
}

#[test]
fn workers_at_the_same_time_stay_apart() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let secrets = [".npmrc", ".aws/credentials", ".docker/config.json", ".netrc"];
    let job = |(index, secret): (usize, &&str)| {
        let script = format!("for i in 1 2 3 4 5; do cat \"$HOME/{secret}\" > /dev/null; sleep 0.05; done\n");
        Job::new(&format!("acme/parallel-{index}"), &format!("{index}"), "loop", &script)
    };
    let plan = Plan { at_once: secrets.len(), jobs: secrets.iter().enumerate().map(job).collect() };
    let events = observe(directory.path(), &home, &plan);

    for (index, secret) in secrets.iter().enumerate() {
        let path = home.join(secret).display().to_string();
        let runs = accesses_by_run(&events, &path);
        let run = index.to_string();
        assert_eq!(runs.keys().copied().collect::<Vec<_>>(), [run.as_str()], "{secret}");
        assert_eq!(
            runs[run.as_str()].len(),
            5,
            "{secret}:\n{}",
            describe_all(runs[run.as_str()].iter().copied())
        );
        let identity = runs[run.as_str()][0].job.as_ref().unwrap();
        assert_eq!(identity.platform, "github-actions");
        assert_eq!(identity.repository, format!("acme/parallel-{index}"));
        assert_eq!(identity.runner_name, "runner-1");
    }
}

#[test]
fn a_javascript_action_is_a_step_like_a_script() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let npmrc = home.join(".npmrc");
    let mut job = Job::new("acme/actions", "1", "script", "cat \"$HOME/.netrc\" > /dev/null\n");
    job.steps.push(Step { id: "__acme_read".to_owned(), work: Work::ActionReads(npmrc.clone()) });
    let events = observe(directory.path(), &home, &Plan { at_once: 1, jobs: vec![job] });

    let npmrc = npmrc.display().to_string();
    let accesses: Vec<&AuditEvent> = events.iter().filter(|event| is_access_to(event, &npmrc)).collect();
    let [access] = accesses[..] else { panic!("one access:\n{}", describe_all(accesses)) };
    let step = access.step.as_ref().unwrap();
    assert_eq!((step.id.as_str(), step.index), ("__acme_read", 2));
    assert!(access.process.as_ref().unwrap().executable.ends_with("/node"), "{}", describe_all([access]));
}
