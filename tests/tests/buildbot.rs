//! A real Buildbot master and worker: two builds at once in one worker, one with variables of its own and one that is known
//! by its builder's directory alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    emulated::{self, JOBS, STEPS},
    events::{describe_all, finished_jobs, lost},
    paths,
    process::{Launch, Running},
    scene::make_home,
};

const DEADLINE: Duration = Duration::from_mins(2);
const BUILDERS: [&str; JOBS] = ["alpha", "beta"];

/// As in a real configuration: a builder with two commands; the first builder gives its builds the variables that
/// docs/platforms.md asks for.
const CONFIGURATION: &str = r#"
from buildbot.plugins import schedulers, steps, util, worker

def commands(builder, environment):
    return util.BuildFactory([
        steps.ShellCommand(command=["sh", f"SCRIPTS/{builder}-{step}.sh"], env=environment) for step in (1, 2)
    ])

alpha = {
    "BUILDBOT_BUILDER": "alpha",
    "BUILDBOT_BUILD": util.Interpolate("%(prop:buildnumber)s"),
    "BUILDBOT_REPOSITORY": "acme/widgets",
}
BuildmasterConfig = {
    "workers": [worker.Worker("one", "fake", max_builds=2)],
    "protocols": {"pb": {"port": "tcp:PORT:interface=127.0.0.1"}},
    "builders": [
        util.BuilderConfig(name="alpha", workernames=["one"], factory=commands("alpha", alpha)),
        util.BuilderConfig(name="beta", workernames=["one"], factory=commands("beta", {})),
    ],
    "schedulers": [schedulers.Periodic(name="once", builderNames=["alpha", "beta"], periodicBuildTimer=86400)],
    "db": {"db_url": "sqlite:///state.sqlite"},
    "buildbotNetUsageData": None,
    "title": "test",
    "titleURL": "http://localhost/",
    "buildbotURL": "http://localhost/",
}
"#;

fn script(directory: &Path, job: usize, step: usize) -> String {
    let [own, daemon] = emulated::secrets_of(directory, job, step).map(|path| path.display().to_string());
    let other = BUILDERS[JOBS - job];
    format!(
        "cat {own} > /dev/null\n\
         env BUILDBOT_BUILDER={other} BUILDBOT_BUILD=9 cat {own} > /dev/null\n\
         setsid --fork env -i sh -c 'sleep 0.3; cat {daemon}' < /dev/null > /dev/null 2>&1\n\
         sleep 0.3\n"
    )
}

fn tool(name: &str) -> PathBuf {
    paths::buildbot(name).unwrap()
}

fn run(directory: &Path, name: &str, program: &str, arguments: &[&str]) {
    Launch::new(name, tool(program), &directory.join("logs"))
        .args(arguments)
        .directory(directory)
        .run_successfully(DEADLINE)
        .unwrap();
}

/// A master that listens on a port of its own, and a worker that has not been started.
fn prepare(directory: &Path) -> Running {
    let scripts = directory.join("scripts");
    fs::create_dir(&scripts).unwrap();
    for (job, builder) in (1..).zip(BUILDERS) {
        for step in 1..=STEPS {
            fs::write(scripts.join(format!("{builder}-{step}.sh")), script(directory, job, step)).unwrap();
        }
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    run(directory, "create-master", "buildbot", &["create-master", "--quiet", "master"]);
    let configuration =
        CONFIGURATION.replace("SCRIPTS", &scripts.display().to_string()).replace("PORT", &port);
    fs::write(directory.join("master/master.cfg"), configuration).unwrap();
    let address = format!("127.0.0.1:{port}");
    run(directory, "create-worker", "buildbot-worker", &["create-worker", "worker", &address, "one", "fake"]);
    let mut master = Launch::new("master", tool("buildbot"), &directory.join("logs"))
        .args(["start", "--nodaemon", "master"])
        .directory(directory)
        .spawn()
        .unwrap();
    let log = directory.join("master/twistd.log");
    let up = || fs::read_to_string(&log).is_ok_and(|text| text.contains("BuildMaster is running"));
    master.wait_until("its start", DEADLINE, up).unwrap();
    master
}

#[test]
fn builds_at_once_in_a_daemonised_worker_keep_what_is_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let home = make_home(directory).unwrap();
    emulated::make_secrets(directory).unwrap();
    let master = prepare(directory);
    let settings = Settings::new(directory, &home)
        .with(&emulated::settings(directory))
        .with("[runners]\njob_idle_seconds = 3\n");
    let agent = Agent::start_with_json(&settings).unwrap();
    // Without --nodaemon: the process that is started ends, and one of its children is the worker.
    run(directory, "worker", "buildbot-worker", &["start", "worker"]);
    let all_read = |events: &[AuditEvent]| {
        let read = emulated::all_secrets(directory).all(|path| !emulated::accesses(events, &path).is_empty());
        read && finished_jobs(events).count() >= JOBS
    };
    // Too few is for the assertions to tell, with more detail.
    let _ = agent.wait_for("every secret's reader and the builds' ends", Duration::from_mins(1), all_read);
    run(directory, "stop-worker", "buildbot-worker", &["stop", "worker"]);
    master.stop().unwrap();
    let (_, events) = agent.stop().unwrap();
    let all = describe_all(&events);

    for (job, builder) in (1..).zip(BUILDERS) {
        for step in 1..=STEPS {
            for path in emulated::secrets_of(directory, job, step) {
                let accesses = emulated::accesses(&events, &path);
                assert!(!accesses.is_empty(), "nobody read {}:\n{all}", path.display());
                for access in accesses {
                    let identity = access.job.as_ref().unwrap_or_else(|| panic!("outside jobs:\n{all}"));
                    assert_eq!(identity.platform, "buildbot");
                    assert_eq!(identity.workflow, builder, "{all}");
                    let known = if builder == "alpha" { ("acme/widgets", "1") } else { ("", "") };
                    assert_eq!((identity.repository.as_str(), identity.run_id.as_str()), known);
                    assert_eq!(access.step.as_ref().unwrap().index as usize, step, "{all}");
                }
            }
        }
        let told = |event: &&AuditEvent| {
            matches!(event.body, Some(Body::IdentitySpoof(_)))
                && event.job.as_ref().is_some_and(|identity| identity.workflow == builder)
        };
        assert!(events.iter().any(|event| told(&event)), "{builder} called itself another unnoticed:\n{all}");
    }
    assert_eq!(finished_jobs(&events).count(), JOBS, "{all}");
    assert_eq!(lost(&events), 0);
}
