//! What runners' hook scripts tell the agent, and what others try to tell it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    time::Duration,
};

use buildtrail_proto::v1::{Assurance, AuditEvent, IdentityVerified, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    collector::{Site, agent_settings},
    events::{describe_all, finished_jobs, of_repository},
    fakerunner::{self, Job, Plan, Step, Work},
    paths,
    process::Launch,
    scene::make_home,
};

/// Of a made-up issuer, for acme/widgets' run 7.
const TOKEN: &str = include_str!("../scenario/issuer/token");
const KEYS: &str = include_str!("../scenario/issuer/jwks.json");
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

/// Serves the keys of the tests' issuer on the loopback interface for as long as the test runs.
fn serve_keys() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 1024]);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", KEYS.len());
            let _ = stream.write_all((head + KEYS).as_bytes());
        }
    });
    url
}

fn identities(events: &[AuditEvent], repository: &str) -> Vec<IdentityVerified> {
    of_repository(events, repository)
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::IdentityVerified(identity)) => Some(identity.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_providers_token_verifies_its_own_job_and_no_other() {
    let host = Host::new();
    let issuer = format!(
        "[[identity_issuers]]\nissuer = \"https://issuer.example.test\"\nkeys_url = {:?}\naudience = \"buildtrail\"\n",
        serve_keys()
    );
    let site = Site::prepare(host.path()).unwrap().with(&issuer);
    let collector = site.start("127.0.0.1:0", false).unwrap();
    let settings = agent_settings(&site, &collector.address, &host.home);
    let agent = Agent::start_with_collector(&settings, false).unwrap();
    let hand_over = format!(
        "printf %s {TOKEN} | {} hook started --token-stdin --config {} > /dev/null\nsleep 3\n",
        paths::binary("buildtrail-agent").unwrap().display(),
        host.path().join("agent.toml").display(),
    );
    let job = |repository: &str| Job::new(repository, "7", "hook", &hand_over);
    let plan = Plan { at_once: 2, jobs: vec![job("acme/widgets"), job("acme/thief")] };
    let mut runner = fakerunner::start(host.path(), &host.home, &plan).unwrap();
    assert!(runner.wait(DEADLINE).unwrap().success(), "{}", runner.tail(20));
    let jobs = collector.wait_for_finished_jobs(2, DEADLINE).unwrap();

    let events = collector.all_events().unwrap();
    let own = identities(&events, "acme/widgets");
    assert_eq!(own.len(), 1, "{}", describe_all(&events));
    assert_eq!(own[0].agreed, ["repository", "run_id"]);
    let stolen = identities(&events, "acme/thief");
    assert_eq!(stolen.len(), 1, "{}", describe_all(&events));
    assert_eq!(stolen[0].differing[0].claimed, "acme/widgets");
    let assurance = |repository: &str| {
        let of =
            jobs.iter().filter_map(|summary| summary.job.as_ref()).find(|job| job.repository == repository);
        of.unwrap().assurance()
    };
    assert_eq!(assurance("acme/widgets"), Assurance::Verified);
    assert_eq!(assurance("acme/thief"), Assurance::Observed);
    let acts = collector.ask(&["acts", "--json"]).unwrap().text();
    assert_eq!(acts.matches("identity_checked").count(), 2, "{acts}");
    let signature = TOKEN.rsplit('.').next().unwrap();
    agent.stop().unwrap();
    collector.stop().unwrap();
    let kept = Launch::new("grep", "grep", &host.path().join("logs"))
        .args(["-rlF", signature])
        .arg(site.data())
        .arg(host.path().join("agent-state"))
        .run(DEADLINE)
        .unwrap();
    assert_eq!(kept.text(), "", "the token is kept");
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
