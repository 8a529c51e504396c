//! A job goes on while the agent is stopped, killed or replaced by another build: nothing missed, nothing twice.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{path::Path, time::Duration};

use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    bpffs,
    events::{self, describe_all, finished_jobs, step_of},
    fakerunner::{self, Job, Plan},
    process::Running,
    scene::make_home,
};

/// Programs that the job's only step starts, one after the other, with their number as argument.
const TICKS: usize = 80;
const REPOSITORY: &str = "acme/restarted";

/// A job of some nine seconds whose daemon, started at once, outlives its parent and reads a secret at the end: fanotify, which
/// sees that at tier B, is away while no agent runs.
fn job() -> Plan {
    let script = format!(
        "(setsid sh -c 'sleep 8; cat \"$HOME/.npmrc\" > /dev/null' > /dev/null 2>&1 &)
for tick in $(seq 1 {TICKS}); do /bin/true tick $tick; sleep 0.1; done"
    );
    Plan { at_once: 1, jobs: vec![Job::new(REPOSITORY, "1", "ticking", &script)] }
}

/// A test's agents, which share their pins, and its runner.
struct Stage {
    directory: tempfile::TempDir,
    home: std::path::PathBuf,
    pins: std::path::PathBuf,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = make_home(directory.path()).unwrap();
        let pins = bpffs::mount_for_this_thread(directory.path()).unwrap().join("buildtrail");
        Self { directory, home, pins }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn agent(&self, bulk_ring: usize) -> Agent {
        let settings = Settings::new(self.path(), &self.home).with(&format!(
            "[sensor]\npin_directory = {:?}\nbulk_ring_bytes = {bulk_ring}\n",
            self.pins.display().to_string()
        ));
        Agent::start_with_json(&settings).unwrap()
    }

    fn runner(&self) -> Running {
        fakerunner::start(self.path(), &self.home, &job()).unwrap()
    }
}

const RING: usize = 1 << 20;

fn pause(tenths: u64) {
    std::thread::sleep(Duration::from_millis(100 * tenths));
}

/// Numbers of the programs that were reported, in order, all of them on the job's step.
fn ticks(events: &[AuditEvent]) -> Vec<usize> {
    let tick = |event: &AuditEvent| match &event.body {
        Some(Body::ProcessExec(exec)) if exec.argv.get(1).is_some_and(|word| word == "tick") => {
            assert_eq!(events::repository_of(event), Some(REPOSITORY), "{}", events::describe(event));
            assert_eq!(step_of(event), "ticking", "{}", events::describe(event));
            exec.argv[2].parse().ok()
        }
        _ => None,
    };
    events.iter().filter_map(tick).collect()
}

fn end_of_job(agent: Agent, mut runner: Running) -> Vec<AuditEvent> {
    assert!(runner.wait(Duration::from_mins(1)).unwrap().success(), "{}", runner.tail(20));
    let ended = |events: &[AuditEvent]| finished_jobs(events).count() == 1;
    agent.wait_for("the job's end", Duration::from_secs(20), ended).unwrap();
    agent.stop().unwrap().1
}

fn assert_whole(events: &[AuditEvent]) {
    let expected: Vec<usize> = (1..=TICKS).collect();
    assert_eq!(ticks(events), expected, "{}", describe_all(events));
    let started = events.iter().filter(|event| matches!(event.body, Some(Body::JobStarted(_)))).count();
    assert_eq!((started, finished_jobs(events).count()), (1, 1));
    assert_eq!(events::lost(events), 0, "{}", describe_all(events));
    let secret = |event: &&AuditEvent| matches!(&event.body, Some(Body::SecretAccess(access)) if access.path.ends_with("/.npmrc"));
    let reads: Vec<&AuditEvent> = events.iter().filter(secret).collect();
    let [read] = reads[..] else { panic!("one read of the secret:\n{}", describe_all(events)) };
    let owner = (events::repository_of(read), step_of(read));
    assert_eq!(owner, (Some(REPOSITORY), "ticking"), "{read:?}\n{}", describe_all(events));
}

#[test]
fn a_restart_misses_nothing_and_reports_nothing_twice() {
    let stage = Stage::new();
    let first = stage.agent(RING);
    let runner = stage.runner();
    pause(10);
    let (_, mut events) = first.stop().unwrap();
    pause(10);
    let second = stage.agent(RING);
    pause(5);
    events.extend(second.stop().unwrap().1);
    pause(5);
    events.extend(end_of_job(stage.agent(RING), runner));
    assert_whole(&events);
}

#[test]
fn an_upgrade_misses_nothing_and_reports_nothing_twice() {
    let stage = Stage::new();
    let first = stage.agent(RING);
    let runner = stage.runner();
    pause(10);
    let (_, mut events) = first.stop().unwrap();
    pause(5);
    // Other sizes need other maps, and so other programs: as after an upgrade.
    events.extend(end_of_job(stage.agent(2 * RING), runner));
    let generations = std::fs::read_dir(&stage.pins).unwrap().count();
    assert_eq!(generations, 1, "the old programs are gone");
    let names = |name: &str| events.iter().filter(|event| event.kind() == name).count();
    assert_eq!(names("job.finished"), 1);
    let expected: Vec<usize> = (1..=TICKS).collect();
    assert_eq!(ticks(&events), expected, "{}", describe_all(&events));
}

#[test]
fn an_agent_that_was_killed_is_followed_by_one_that_knows_the_job() {
    let stage = Stage::new();
    let first = stage.agent(RING);
    let runner = stage.runner();
    pause(10);
    let mut events = first.kill().unwrap();
    pause(5);
    events.extend(end_of_job(stage.agent(RING), runner));
    let found = ticks(&events);
    let missing: Vec<usize> = (1..=TICKS).filter(|tick| !found.contains(tick)).collect();
    // What the dead agent had read but not written is lost with it: at most what happens in one round of its loop.
    assert!(missing.len() <= 2, "{missing:?}");
    assert_eq!(finished_jobs(&events).count(), 1);
}

#[test]
fn leftovers_and_other_agents_do_not_stop_a_start() {
    let stage = Stage::new();
    for leftover in ["new_0123_4567", "0123456789abcdef_0123456789abcdef", "something else"] {
        std::fs::create_dir_all(stage.pins.join(leftover)).unwrap();
    }
    let pinned = stage.agent(RING);
    let other_directory = tempfile::tempdir().unwrap();
    let other = Agent::start_with_json(&Settings::new(other_directory.path(), &stage.home)).unwrap();
    let mut runner = stage.runner();
    assert!(runner.wait(Duration::from_mins(1)).unwrap().success(), "{}", runner.tail(20));
    let ended = |events: &[AuditEvent]| finished_jobs(events).count() == 1;
    for agent in [&pinned, &other] {
        agent.wait_for("the job's end", Duration::from_secs(20), ended).unwrap();
    }
    assert_whole(&pinned.stop().unwrap().1);
    assert_whole(&other.stop().unwrap().1);
}
