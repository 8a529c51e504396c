//! Histories of a host, told as the sensors would tell them, and who gets the blame.

mod heirlooms;
mod identity;
mod naming;
mod random;

use std::rc::Rc;

use buildtrail_evidence::id::{BootId, HostId};
use v1::AuditEvent;

use super::*;
use crate::{
    config::Config,
    output::{JsonOutput, Written},
    sensor::{
        files::{FileId, Operations, Who},
        records::{Closed, Connect, Payload, Progress, SocketId, Variable},
    },
};

/// Process numbers that no running system has: above the kernel's largest `pid_max` (4,194,304).
const RUNNER: u32 = 5_000_000;
const STEP: u32 = RUNNER + 1;
const CHILD: u32 = RUNNER + 2;
const STRANGER: u32 = RUNNER + 100;

/// A host whose history is being told.
struct History {
    pipeline: Pipeline,
    lines: Written,
    clock: u64,
}

/// What the kernel side would say when it has lost nothing.
const NO_LOSSES: ReadCounters<'static> = &|| Ok(Vec::new());

fn id(pid: u32) -> ProcessId {
    // Not a multiple of the resolution of /proc: the kernel side's own times are exact.
    ProcessId { pid, start: BootTime(u64::from(pid) * 1_000_003) }
}

impl History {
    fn new() -> Self {
        let lines = Written::default();
        let host =
            HostIdentity { host_id: HostId::parse("h").unwrap(), boot_id: BootId::parse("b").unwrap() };
        let settings = Settings {
            platforms: Platforms::new(&Config::default()).unwrap(),
            trust: Trust::default(),
            job_idle: Duration::from_secs(30),
        };
        let output = Output::Json(JsonOutput::start(host.clone(), lines.clone()).unwrap());
        Self { pipeline: Pipeline::new(host, settings, output), lines, clock: 1_000_000_000_000 }
    }

    fn record(&mut self, pid: u32, what: What) {
        self.clock += 1000;
        let time = BootTime(self.clock);
        let record = Record { time, process: id(pid), users: Users::default(), what };
        self.pipeline.process(Batch { records: vec![record], ..Batch::default() });
    }

    fn fork(&mut self, creator: u32, child: u32) {
        self.record(creator, What::Fork { child: id(child), parent_pid: creator });
    }

    fn exec(&mut self, pid: u32, parent: u32, path: &str, environment: &[(&str, &str)]) {
        let variable = |(name, value): &(&str, &str)| Variable {
            name: name.as_bytes().to_vec(),
            value: Some(value.as_bytes().to_vec()),
        };
        let exec = Exec {
            filename: path.as_bytes().to_vec(),
            arguments: vec![path.as_bytes().to_vec()],
            variables: environment.iter().map(variable).collect(),
            parent_pid: parent,
            ..Exec::default()
        };
        self.record(pid, What::Exec(Box::new(exec)));
    }

    fn connect(&mut self, pid: u32, port: u16) {
        self.record(pid, What::Connect(connection(port)));
    }

    fn read_secret(&mut self, pid: u32, name: &str) {
        let all = Operations::OPEN.union(Operations::READ).union(Operations::CLOSE);
        let event = FileEvent {
            time: BootTime(self.clock),
            process: Who::Number { pid, alive: true },
            entry: Rc::new(Entry { name: name.to_owned(), family: "test".to_owned() }),
            path: b"/secret".to_vec(),
            file: FileId { device: 1, inode: 1 },
            operations: all,
            in_jobs_only: false,
            seen: None,
        };
        self.pipeline.process(Batch { files: vec![event], ..Batch::default() });
    }

    /// A runner that has started one step of a job.
    fn with_a_step() -> Self {
        let mut history = Self::new();
        history.exec(RUNNER, 1, "/opt/runner/bin/Runner.Worker", &[]);
        history.fork(RUNNER, STEP);
        history.exec(STEP, RUNNER, "/bin/bash", &step_of("acme/widgets", "build"));
        history
    }

    fn finish(self) -> Vec<AuditEvent> {
        self.pipeline.finish(NO_LOSSES);
        self.lines.events()
    }
}

fn connection(port: u16) -> Connect {
    Connect {
        address: [127, 0, 0, 1].into(),
        port,
        protocol: 6,
        unconnected: false,
        taken_over: false,
        socket: SocketId(u64::from(port)),
    }
}

fn step_of<'a>(repository: &'a str, step: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", repository),
        ("GITHUB_JOB", "release"),
        ("GITHUB_RUN_ID", "7"),
        ("GITHUB_ACTION", step),
    ]
}

/// Repository and step of each event of a kind.
fn blamed(events: &[AuditEvent], kind: &str) -> Vec<(String, String)> {
    let of_kind = events.iter().filter(|event| event.kind() == kind);
    of_kind
        .map(|event| {
            let repository = event.job.as_ref().map(|job| job.repository.clone());
            let step = event.step.as_ref().map(|step| step.id.clone());
            (repository.unwrap_or_default(), step.unwrap_or_default())
        })
        .collect()
}

fn widgets(step: &str) -> (String, String) {
    ("acme/widgets".to_owned(), step.to_owned())
}

#[test]
fn descendants_belong_to_the_step_whatever_they_do_to_their_ancestry() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.record(STEP, What::Exit { core_dumped: false });
    history.fork(CHILD, CHILD + 1);
    history.record(CHILD, What::Exit { core_dumped: false });
    history.exec(CHILD + 1, 1, "/bin/daemon", &[]);
    history.connect(CHILD + 1, 443);
    assert_eq!(blamed(&history.finish(), "connection.opened"), [widgets("build")]);
}

#[test]
fn a_job_cannot_rename_itself() {
    let mut history = History::with_a_step();
    history.exec(STEP, RUNNER, "/bin/bash", &step_of("other/repo", "innocent"));
    history.fork(STEP, CHILD);
    history.exec(CHILD, STEP, "/bin/bash", &step_of("other/repo", "innocent"));
    history.connect(CHILD, 443);
    let events = history.finish();
    assert_eq!(blamed(&events, "connection.opened"), [widgets("build")]);
    assert_eq!(blamed(&events, "job.started").len(), 1);
}

#[test]
fn a_runner_started_by_a_job_is_no_runner() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.exec(CHILD, STEP, "/tmp/Runner.Worker", &[]);
    history.fork(CHILD, CHILD + 1);
    history.exec(CHILD + 1, CHILD, "/bin/bash", &step_of("other/repo", "innocent"));
    history.connect(CHILD + 1, 443);
    assert_eq!(blamed(&history.finish(), "connection.opened"), [widgets("build")]);
}

#[test]
fn the_environment_alone_makes_no_job() {
    let mut history = History::new();
    history.fork(1, STRANGER);
    history.exec(STRANGER, 1, "/bin/bash", &step_of("acme/widgets", "build"));
    history.connect(STRANGER, 443);
    let events = history.finish();
    assert_eq!(blamed(&events, "job.started"), []);
    assert_eq!(blamed(&events, "connection.opened"), []);
}

#[test]
fn outside_jobs_only_what_touches_a_secret_is_told() {
    let mut history = History::with_a_step();
    history.fork(1, STRANGER);
    history.exec(STRANGER, 1, "/bin/cat", &[]);
    history.read_secret(STRANGER, "key");
    let events = history.finish();
    assert_eq!(blamed(&events, "secret.access"), [(String::new(), String::new())]);
    assert_eq!(blamed(&events, "process.exec"), [widgets("build")]);
}

#[test]
fn a_birth_that_was_lost_is_made_up_for_at_the_execution() {
    let mut history = History::with_a_step();
    history.exec(CHILD, STEP, "/bin/cat", &[]);
    history.read_secret(CHILD, "key");
    assert_eq!(blamed(&history.finish(), "secret.access"), [widgets("build")]);
}

#[test]
fn a_reader_that_has_ended_is_still_known() {
    let mut history = History::with_a_step();
    history.fork(STEP, CHILD);
    history.record(CHILD, What::Exit { core_dumped: false });
    history.read_secret(CHILD, "key");
    assert_eq!(blamed(&history.finish(), "secret.access"), [widgets("build")]);
}

#[test]
fn steps_of_one_runner_follow_each_other() {
    let mut history = History::with_a_step();
    history.record(STEP, What::Exit { core_dumped: false });
    history.fork(RUNNER, CHILD);
    history.exec(CHILD, RUNNER, "/usr/bin/node", &step_of("acme/widgets", "upload"));
    history.connect(CHILD, 443);
    assert_eq!(blamed(&history.finish(), "connection.opened"), [widgets("upload")]);
}

#[test]
fn a_job_ends_with_its_runner_and_after_everything_it_did() {
    let mut history = History::with_a_step();
    history.record(STEP, What::Exit { core_dumped: false });
    history.record(RUNNER, What::Exit { core_dumped: false });
    let ended = BootTime(history.clock);
    history.read_secret(STEP, "key");
    history.pipeline.tick(ended, NO_LOSSES);
    history.pipeline.tick(BootTime(ended.0 + JOB_END_GRACE), NO_LOSSES);
    let events = history.finish();
    let of_job: Vec<&str> = events.iter().filter(|event| event.job.is_some()).map(AuditEvent::kind).collect();
    assert_eq!(of_job, ["job.started", "process.exec", "secret.access", "job.finished"]);
}

#[test]
fn a_loss_in_the_kernel_is_told_once() {
    let mut history = History::new();
    let counters = || {
        Ok(vec![(
            Hook::Exec,
            Counters { happened: 13, emitted: 9, lost_ring_full: 3, lost_no_slot: 1, lost_unreadable: 0 },
        )])
    };
    history.pipeline.tick(BootTime(history.clock), &counters);
    history.pipeline.tick(BootTime(history.clock * 2), &counters);
    let events = history.finish();
    let losses: Vec<(String, u64)> = events
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::Loss(loss)) => Some((format!("{}: {}", loss.stage, loss.reason), loss.count)),
            _ => None,
        })
        .collect();
    assert_eq!(
        losses,
        [("process.exec: ring buffer full".into(), 3), ("process.exec: no free slot".into(), 1)]
    );
}

#[test]
fn a_connection_that_ends_after_its_process_and_job_still_belongs_to_them() {
    let mut history = History::with_a_step();
    history.connect(STEP, 443);
    let hello = Payload {
        socket: SocketId(443),
        kind: buildtrail_agent_abi::PayloadKind::PROXY,
        bytes: b"CONNECT api.example.test:443 HTTP/1.1".to_vec(),
    };
    history.record(STEP, What::Payload(hello));
    history.record(STEP, What::Exit { core_dumped: false });
    history.record(RUNNER, What::Exit { core_dumped: false });
    history.clock += 60_000_000_000;
    history.pipeline.tick(BootTime(history.clock), NO_LOSSES);
    let closed = Closed {
        connect: connection(443),
        opened: BootTime(history.clock),
        local: None,
        bytes_out: 7,
        bytes_in: 9,
        error: 0,
        progress: Progress::Established,
    };
    history.record(STEP, What::Closed(closed));
    history.record(STRANGER, What::Closed(Closed { connect: connection(444), ..closed }));
    let events = history.finish();
    assert_eq!(blamed(&events, "connection.closed"), [widgets("build")]);
    let body = events.iter().find_map(|event| match &event.body {
        Some(Body::ConnectionClosed(body)) => Some(body.clone()),
        _ => None,
    });
    let body = body.unwrap();
    assert_eq!((body.bytes_out, body.bytes_in, body.duration_ns), (7, 9, 1000));
    assert_eq!(body.proxied_to, "api.example.test:443");
}
