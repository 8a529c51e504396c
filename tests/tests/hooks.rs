//! What runners' hook scripts tell the agent, and what others try to tell it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{path::Path, time::Duration};

use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{describe_all, finished_jobs},
    fakerunner::{self, Job, Plan, Step, Work},
    paths,
    process::Launch,
    scene::make_home,
};

const DEADLINE: Duration = Duration::from_mins(1);

struct Host {
    directory: tempfile::TempDir,
    home: std::path::PathBuf,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = make_home(directory.path()).unwrap();
        Self { directory, home }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn settings(&self, required: bool) -> Settings {
        let settings = Settings::new(self.path(), &self.home);
        if required { settings.with("required = true\n") } else { settings }
    }

    /// A script that calls the hook script of the package as a runner does, and keeps what it says.
    fn hook(&self, moment: &str) -> String {
        format!(
            "{} {moment} {} {} >> {} 2>&1\n",
            paths::packaging("hooks/job-hook").display(),
            paths::binary("buildtrail-agent").unwrap().display(),
            self.path().join("agent.toml").display(),
            self.path().join("said").display(),
        )
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path().join("said")).unwrap_or_default()
    }

    fn run(&self, steps: Vec<Step>) -> bool {
        let job = Job { steps, ..Job::new("acme/hooked", "1", "unused", "") };
        let plan = Plan { at_once: 1, jobs: vec![job] };
        let mut runner = fakerunner::start(self.path(), &self.home, &plan).unwrap();
        runner.wait(DEADLINE).unwrap().success()
    }
}

fn script(id: &str, text: &str) -> Step {
    Step { id: id.to_owned(), work: Work::Script(text.to_owned()) }
}

fn end(events: &[AuditEvent]) -> &AuditEvent {
    let is_end = |event: &&AuditEvent| matches!(event.body, Some(Body::JobFinished(_)));
    events.iter().find(is_end).unwrap_or_else(|| panic!("no job ended:\n{}", describe_all(events)))
}

#[test]
fn a_runners_hooks_are_heard_and_the_end_is_theirs() {
    let host = Host::new();
    let agent = Agent::start_with_json(&host.settings(true)).unwrap();
    let steps = vec![
        script("hook-started", &host.hook("started")),
        script("work", "true"),
        script("hook-completed", &host.hook("completed")),
    ];
    assert!(host.run(steps), "{}", host.said());
    let _ = agent.wait_for("the job's end", DEADLINE, |events| finished_jobs(events).count() > 0);
    let (_, events) = agent.stop().unwrap();
    let id = &end(&events).job.as_ref().unwrap().job_id;
    assert_eq!(host.said().lines().collect::<Vec<_>>(), [id, id], "each hook is told the job");
    let Some(Body::JobFinished(summary)) = &end(&events).body else { unreachable!() };
    assert!(summary.told_by_hook);
}

#[test]
fn an_end_that_a_job_claims_before_its_last_step_does_not_count() {
    let host = Host::new();
    let agent = Agent::start_with_json(&host.settings(false)).unwrap();
    assert!(host.run(vec![script("claim", &host.hook("completed")), script("work", "true")]));
    let _ = agent.wait_for("the job's end", DEADLINE, |events| finished_jobs(events).count() > 0);
    let (_, events) = agent.stop().unwrap();
    let Some(Body::JobFinished(summary)) = &end(&events).body else { unreachable!() };
    assert!(!summary.told_by_hook, "{}", describe_all(&events));
}

#[test]
fn a_missing_agent_fails_a_job_only_if_the_operator_says_so() {
    let host = Host::new();
    host.settings(false).write().unwrap();
    assert!(host.run(vec![script("hook", &host.hook("started"))]), "{}", host.said());
    assert!(host.said().contains("no agent listens"), "{}", host.said());
    host.settings(true).write().unwrap();
    assert!(!host.run(vec![script("hook", &host.hook("started"))]), "{}", host.said());
}

#[test]
fn who_was_not_started_by_a_runner_is_refused() {
    let host = Host::new();
    let agent = Agent::start_with_json(&host.settings(true)).unwrap();
    let stranger = Launch::new("stranger", "sh", &host.path().join("logs"))
        .args(["-c", &host.hook("completed")])
        .run(DEADLINE)
        .unwrap();
    assert!(!stranger.status.success());
    assert!(host.said().contains("not started by a runner"), "{}", host.said());
    agent.stop().unwrap();
}
