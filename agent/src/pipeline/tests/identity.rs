//! Attempts to be another job, what outlives its job, and hand-overs.

use super::*;

const DAEMON: u32 = STEP + 10;

fn bodies<T>(events: &[AuditEvent], take: impl Fn(&Body) -> Option<T>) -> Vec<T> {
    events.iter().filter_map(|event| take(event.body.as_ref()?)).collect()
}

fn spoofs(events: &[AuditEvent]) -> Vec<v1::IdentitySpoof> {
    bodies(events, |body| match body {
        Body::IdentitySpoof(spoof) => Some(spoof.clone()),
        _ => None,
    })
}

fn delegations(events: &[AuditEvent]) -> Vec<v1::Delegation> {
    bodies(events, |body| match body {
        Body::Delegation(delegation) => Some(delegation.clone()),
        _ => None,
    })
}

impl History {
    fn end_job(&mut self, runner: u32) {
        self.record(runner, What::Exit { core_dumped: false });
        self.clock += JOB_END_GRACE;
        self.pipeline.tick(BootTime(self.clock), NO_LOSSES);
    }

    fn run(&mut self, pid: u32, parent: u32, line: &str) {
        let exec = Exec {
            filename: line.split(' ').next().unwrap_or_default().as_bytes().to_vec(),
            arguments: line.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
            parent_pid: parent,
            ..Exec::default()
        };
        self.record(pid, What::Exec(Box::new(exec)));
    }
}

#[test]
fn claiming_to_be_another_job_is_told_once_with_what_differs() {
    let mut history = History::with_a_step();
    for _ in 0..3 {
        history.fork(STEP, CHILD);
        history.exec(CHILD, STEP, "/bin/bash", &step_of("other/repo", "innocent"));
        history.record(CHILD, What::Exit { core_dumped: false });
    }
    let events = history.finish();
    let found = spoofs(&events);
    let [spoof] = &found[..] else { panic!("{found:?}") };
    let claim = |claim: &v1::IdentityClaim| (claim.name.clone(), claim.claimed.clone(), claim.known.clone());
    assert_eq!(
        spoof.claims.iter().map(claim).collect::<Vec<_>>(),
        [("repository".to_owned(), "other/repo".to_owned(), "acme/widgets".to_owned())]
    );
    assert_eq!(blamed(&events, "identity.spoof"), [widgets("build")]);
}

#[test]
fn the_same_environment_again_is_no_claim() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.exec(CHILD, STEP, "/bin/bash", &step_of("acme/widgets", "another-step"));
    history.exec(CHILD, STEP, "/bin/bash", &[("GITHUB_REPOSITORY", "other/repo")]);
    assert_eq!(spoofs(&history.finish()), []);
}

#[test]
fn attempts_of_one_job_are_bounded_and_the_last_says_so() {
    let mut history = History::with_a_step();
    for number in 0..1000 {
        history.exec(STEP, RUNNER, "/bin/bash", &step_of(&format!("other/{number}"), "build"));
    }
    let found = spoofs(&history.finish());
    assert_eq!(found.len(), 64);
    assert_eq!(found.iter().filter(|spoof| spoof.last).count(), 1);
    assert!(found[63].last);
}

#[test]
fn a_runner_started_or_registered_by_a_job_is_told() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.run(CHILD, STEP, "/tmp/Runner.Worker spawnclient 1 2");
    history.run(CHILD, STEP, "bash ./config.sh --url https://git.test/a/b --token t");
    let kinds: Vec<v1::SpoofKind> = spoofs(&history.finish()).iter().map(v1::IdentitySpoof::kind).collect();
    assert_eq!(kinds, [v1::SpoofKind::RunnerProgram, v1::SpoofKind::RunnerCommand]);
}

#[test]
fn a_process_that_outlives_its_job_stays_the_jobs_and_its_events_say_so() {
    let mut history = History::with_a_step();
    history.fork(STEP, DAEMON);
    history.record(STEP, What::Exit { core_dumped: false });
    history.end_job(RUNNER);
    history.exec(DAEMON, 1, "/bin/late", &[]);
    history.fork(DAEMON, DAEMON + 1);
    history.connect(DAEMON + 1, 443);
    let events = history.finish();
    let told: Vec<(&str, bool)> = events
        .iter()
        .filter(|event| event.job.is_some())
        .map(|event| (event.kind(), event.after_job))
        .collect();
    assert_eq!(
        told,
        [
            ("job.started", false),
            ("process.exec", false),
            ("escape", true),
            ("job.finished", false),
            ("process.exec", true),
            ("connection.opened", true)
        ]
    );
    assert_eq!(blamed(&events, "connection.opened"), [widgets("build")]);
    let left = bodies(&events, |body| match body {
        Body::JobFinished(finished) => Some(finished.processes_left),
        _ => None,
    });
    assert_eq!(left, [1]);
}

#[test]
fn a_job_is_forgotten_when_its_last_process_ends() {
    let mut history = History::with_a_step();
    history.fork(STEP, DAEMON);
    history.record(STEP, What::Exit { core_dumped: false });
    history.end_job(RUNNER);
    assert_eq!(history.pipeline.jobs.over(), 1);
    assert_eq!(history.pipeline.state().jobs.len(), 1, "an agent that comes after this one must know it");
    history.record(DAEMON, What::Exit { core_dumped: false });
    history.clock += 2_000_000_000;
    history.pipeline.tick(BootTime(history.clock), NO_LOSSES);
    assert_eq!(history.pipeline.jobs.over(), 0);
    assert_eq!(history.pipeline.state(), Saved { boot_id: "b".to_owned(), ..Saved::default() });
}

#[test]
fn work_handed_to_a_service_is_told_on_the_job_and_the_service_stays_outside() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.run(CHILD, STEP, "/usr/bin/systemd-run --user sh -c x");
    let connect =
        What::UnixConnect { peer_pid: 1, path: b"/run/dbus/system_bus_socket".to_vec(), by_send: false };
    history.record(CHILD, connect.clone());
    history.record(CHILD, connect);
    history.fork(1, STRANGER);
    history.exec(STRANGER, 1, "/bin/sh", &[]);
    history.connect(STRANGER, 443);
    let events = history.finish();
    let services: Vec<String> = delegations(&events).into_iter().map(|found| found.service).collect();
    assert_eq!(services, ["systemd", "D-Bus"]);
    assert_eq!(blamed(&events, "connection.opened"), []);
}

#[test]
fn a_daemon_of_one_job_that_another_job_uses_stays_the_first_jobs() {
    let mut history = History::with_a_step();
    history.fork(STEP, DAEMON);
    history.exec(DAEMON, STEP, "/opt/bazel", &[]);
    history.record(STEP, What::Exit { core_dumped: false });
    history.end_job(RUNNER);
    let (runner, step) = (RUNNER + 50, RUNNER + 51);
    history.exec(runner, 1, "/opt/runner/bin/Runner.Worker", &[]);
    history.fork(runner, step);
    history.exec(step, runner, "/bin/bash", &step_of("acme/second", "use"));
    let path = b"/tmp/server.sock".to_vec();
    history.record(step, What::UnixConnect { peer_pid: DAEMON, path, by_send: false });
    history.connect(DAEMON, 443);
    let events = history.finish();
    assert_eq!(blamed(&events, "delegation"), [("acme/second".to_owned(), "use".to_owned())]);
    let found = delegations(&events);
    assert_eq!(found[0].service, "bazel server");
    let first = events.iter().find(|event| event.kind() == "job.started").and_then(|event| event.job.clone());
    assert_eq!(found[0].daemon_job_id, first.unwrap().job_id);
    let daemons = events.iter().find(|event| event.kind() == "connection.opened").unwrap();
    assert_eq!(blamed(&events, "connection.opened"), [widgets("build")]);
    assert!(daemons.after_job);
}
