//! Containers that a real engine runs for jobs: what happens in them is the job's that asked for them, and nobody else's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_proto::v1::{AuditEvent, Escape, EscapeKind, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    engine::{Engine, IMAGE},
    events::{describe_all, finished_jobs, of_repository, repository_of, step_of},
    fakerunner::{self, Container, Job, Plan, Step, Work},
    paths,
    process::Launch,
    scene::make_home,
};

const DEADLINE: Duration = Duration::from_mins(2);

/// An engine, and fake secrets that containers are given.
struct Host {
    engine: Engine,
    directory: tempfile::TempDir,
    home: PathBuf,
}

impl Host {
    fn prepare() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = make_home(directory.path()).unwrap();
        Self { engine: Engine::start(directory.path()).unwrap(), directory, home }
    }

    fn container(&self) -> Container {
        Container {
            engine: self.engine.address(),
            image: IMAGE.to_owned(),
            volumes: vec![format!("{}:/home/ci:ro", self.home.display())],
        }
    }

    /// `docker run` as a job's script has it.
    fn docker_run(&self, options: &str, command: &str) -> String {
        format!(
            "DOCKER_HOST={} docker run --rm --network none -v {}:/home/ci:ro {options} {IMAGE} {command}\n",
            self.engine.address(),
            self.home.display()
        )
    }

    /// Runs the plan under an agent while `beside` happens; everything the agent said.
    fn observe(&self, plan: &Plan, beside: impl FnOnce()) -> Vec<AuditEvent> {
        let agent = Agent::start_with_json(&Settings::new(self.directory.path(), &self.home)).unwrap();
        let mut runner = fakerunner::start(self.directory.path(), &self.home, plan).unwrap();
        beside();
        let status = runner.wait(DEADLINE).unwrap();
        assert!(status.success(), "{}\n{}", runner.tail(20), self.engine.tail());
        // Too few is for the assertions to tell, with more detail.
        let _ = agent.wait_for("the end of all jobs", Duration::from_secs(20), |events| {
            finished_jobs(events).count() >= plan.jobs.len()
        });
        let (status, events) = agent.stop().unwrap();
        assert_eq!(status.code(), Some(0), "the agent stops cleanly");
        events
    }
}

fn script(id: &str, text: &str) -> Step {
    Step { id: id.to_owned(), work: Work::Script(text.to_owned()) }
}

fn job(repository: &str, run_id: &str, steps: Vec<Step>, container: Option<Container>) -> Job {
    Job { repository: repository.to_owned(), run_id: run_id.to_owned(), steps, container }
}

/// Whose the accesses to a file of the home directory are: repository and step; empty for nobody's. In a container the
/// file has another path, and still another one when the container is gone already.
fn accessed_by<'a>(events: &'a [AuditEvent], name: &str) -> Vec<(&'a str, &'a str)> {
    let end = format!("/{name}");
    let is_access = |event: &&AuditEvent| matches!(&event.body, Some(Body::SecretAccess(access)) if access.path.ends_with(&end));
    let mut found: Vec<(&str, &str)> = events
        .iter()
        .filter(is_access)
        .map(|event| (repository_of(event).unwrap_or_default(), step_of(event)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn escapes<'a>(events: &'a [AuditEvent], repository: &str) -> Vec<&'a Escape> {
    of_repository(events, repository)
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::Escape(escape)) if escape.kind() == EscapeKind::Container => Some(escape),
            _ => None,
        })
        .collect()
}

#[test]
fn steps_of_container_jobs_are_their_jobs_two_at_once() {
    let host = Host::prepare();
    let steps = |first: &str, second: &str| {
        vec![
            script("read", &format!("cat /home/ci/{first} > /dev/null; sleep 1")),
            script("daemon", &format!("(sleep 0.5; cat /home/ci/{second} > /dev/null) & sleep 1.5")),
        ]
    };
    let plan = Plan {
        at_once: 2,
        jobs: vec![
            job("acme/one", "1", steps(".npmrc", ".netrc"), Some(host.container())),
            job("acme/two", "2", steps(".aws/credentials", ".git-credentials"), Some(host.container())),
        ],
    };
    let events = host.observe(&plan, || {});
    let expected = [
        (".npmrc", "acme/one", "read"),
        (".netrc", "acme/one", "daemon"),
        (".aws/credentials", "acme/two", "read"),
        (".git-credentials", "acme/two", "daemon"),
    ];
    for (secret, repository, step) in expected {
        let found = accessed_by(&events, secret);
        assert_eq!(found, [(repository, step)], "{secret} in:\n{}", describe_all(&events));
    }
    for repository in ["acme/one", "acme/two"] {
        let inside = of_repository(&events, repository)
            .iter()
            .filter(|event| event.process.as_ref().is_some_and(|process| process.container.len() == 64))
            .count();
        assert!(inside > 0, "no process of {repository} says its container:\n{}", describe_all(&events));
        assert_eq!(escapes(&events, repository), Vec::<&Escape>::new(), "the runner made the container");
    }
}

#[test]
fn a_container_that_a_job_starts_by_itself_is_that_jobs_whatever_its_labels_say() {
    let host = Host::prepare();
    let labels = "--label com.gitlab.gitlab-runner.job.id=1 --label repository=acme/victim -e GITHUB_REPOSITORY=acme/victim \
                  -e GITHUB_ACTIONS=true -e GITHUB_JOB=build -e GITHUB_RUN_ID=1 -e GITHUB_ACTION=read";
    let spoof = host.docker_run(labels, "cat /home/ci/.npmrc");
    let plan = Plan {
        at_once: 2,
        jobs: vec![
            job(
                "acme/victim",
                "1",
                vec![script("read", "cat /home/ci/.netrc > /dev/null; sleep 3")],
                Some(host.container()),
            ),
            job("acme/spoofer", "2", vec![script("spoof", &format!("sleep 1\n{spoof}"))], None),
        ],
    };
    let events = host.observe(&plan, || {});
    assert_eq!(accessed_by(&events, ".npmrc"), [("acme/spoofer", "spoof")], "{}", describe_all(&events));
    assert_eq!(accessed_by(&events, ".netrc"), [("acme/victim", "read")]);
    let told = escapes(&events, "acme/spoofer");
    assert_eq!(told.len(), 1, "{}", describe_all(&events));
    assert_eq!(told[0].image, IMAGE);
    assert_eq!(told[0].host_paths, [host.home.display().to_string()]);
    assert_eq!(escapes(&events, "acme/victim"), Vec::<&Escape>::new());
}

#[test]
fn a_process_in_another_jobs_container_is_whose_client_asked_for_it() {
    let host = Host::prepare();
    let intrude = format!(
        "until DOCKER_HOST={0} docker exec job_1 true; do sleep 0.2; done\n\
         DOCKER_HOST={0} docker exec job_1 cat /home/ci/.npmrc > /dev/null\n",
        host.engine.address()
    );
    let plan = Plan {
        at_once: 2,
        jobs: vec![
            job(
                "acme/victim",
                "1",
                vec![script("work", "cat /home/ci/.netrc > /dev/null; sleep 4")],
                Some(host.container()),
            ),
            job("acme/intruder", "2", vec![script("intrude", &intrude)], None),
        ],
    };
    let events = host.observe(&plan, || {});
    assert_eq!(accessed_by(&events, ".npmrc"), [("acme/intruder", "intrude")], "{}", describe_all(&events));
    assert_eq!(accessed_by(&events, ".netrc"), [("acme/victim", "work")]);
    assert!(!escapes(&events, "acme/intruder").is_empty(), "{}", describe_all(&events));
}

#[test]
fn a_container_that_no_job_asked_for_is_nobodys() {
    let host = Host::prepare();
    let plan = Plan { at_once: 1, jobs: vec![job("acme/one", "1", vec![script("wait", "sleep 3")], None)] };
    let events = host.observe(&plan, || {
        let volume = format!("{}:/home/ci:ro", host.home.display());
        host.engine
            .client("docker-outside")
            .args(["run", "--rm", "--network", "none", "-v", &volume, IMAGE, "cat", "/home/ci/.npmrc"])
            .run_successfully(DEADLINE)
            .unwrap();
    });
    assert_eq!(accessed_by(&events, ".npmrc"), [("", "")], "{}", describe_all(&events));
}

#[test]
fn act_runs_jobs_in_containers_two_at_once() {
    let host = Host::prepare();
    let start = |name: &str, secret: &str| {
        let place = host.directory.path().join(name);
        write_workflow(&place, secret);
        Launch::new(name, paths::act().unwrap(), &host.directory.path().join("logs"))
            .clean_environment()
            .env("HOME", host.directory.path())
            .env("DOCKER_HOST", host.engine.address())
            .args([
                "push",
                "--pull=false",
                "--no-cache-server",
                "--container-daemon-socket",
                "-",
                "--network",
                "none",
            ])
            .args(["-P", &format!("ubuntu-latest={IMAGE}"), "--actor", "octavia"])
            .arg("--container-options")
            .arg(format!("-v {}:/home/ci:ro", host.home.display()))
            .directory(&place)
            .spawn()
            .unwrap()
    };
    let agent = Agent::start_with_json(&Settings::new(host.directory.path(), &host.home)).unwrap();
    let mut runs = [start("one", ".npmrc"), start("two", ".netrc")];
    for run in &mut runs {
        let status = run.wait(DEADLINE).unwrap();
        assert!(status.success(), "{}\n{}", run.tail(40), host.engine.tail());
    }
    let _ = agent.wait_for("the end of both jobs", Duration::from_secs(20), |events| {
        finished_jobs(events).count() >= 2
    });
    let (_, events) = agent.stop().unwrap();
    for (name, secret) in [("acme/one", ".npmrc"), ("acme/two", ".netrc")] {
        let found = accessed_by(&events, secret);
        assert_eq!(found, [(name, "read")], "{secret} in:\n{}", describe_all(&events));
    }
}

fn write_workflow(place: &Path, secret: &str) {
    let workflows = place.join(".github/workflows");
    fs::create_dir_all(&workflows).unwrap();
    let name = place.file_name().unwrap().to_str().unwrap();
    let text = format!(
        "name: contained {name}\non: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    defaults: {{ run: {{ shell: sh }} }}\n    \
         steps:\n      - id: read\n        run: |\n          cat /home/ci/{secret} > /dev/null\n          sleep 1\n"
    );
    fs::write(workflows.join("contained.yml"), text).unwrap();
    let git = |arguments: &[&str]| {
        Launch::new("git", "git", &place.join("logs"))
            .clean_environment()
            .env("HOME", place)
            .env("GIT_CONFIG_COUNT", "0")
            .directory(place)
            .args(["-c", "user.name=Octavia", "-c", "user.email=octavia@example.test"])
            .args(arguments)
            .run_successfully(Duration::from_secs(20))
            .unwrap();
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", ".github"]);
    git(&["commit", "--quiet", "--message=The workflow"]);
    git(&["remote", "add", "origin", &format!("https://github.com/acme/{name}")]);
}
