//! One host that lasts: runners of several vendors at once, and what one job leaves to the next.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_proto::v1::{
    Assurance, AuditEvent, ContaminationUse, EscapeKind, SpoofKind, audit_event::Body,
};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{describe, describe_all, finished_jobs, is_access_to, lost, repository_of, step_of},
    fakerunner::{self, Job, Plan, Step, Work},
    process::{Launch, Running},
    scene::make_home,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// A platform that the operator describes.
const OWN_PLATFORM: &str = r#"
[[platform]]
name = "acme-ci"

[platform.runner]
executables = ["acme-runner"]

[[platform.job]]
when = ["ACME_BUILD"]
ends = "with-runner"

[platform.job.fields]
repository = "${ACME_REPOSITORY}"
run_id = "${ACME_BUILD}"
name = "build"

[platform.job.step]
id = "${ACME_STEP}"
"#;

/// Events of the programs that were started with `tag REPOSITORY`.
fn tagged(events: &[AuditEvent]) -> Vec<(&AuditEvent, &str)> {
    let tag = |event: &AuditEvent| match &event.body {
        Some(Body::ProcessExec(exec)) => {
            let at = exec.argv.iter().position(|word| word == "tag")?;
            exec.argv.get(at + 1).filter(|_| at == 1).cloned()
        }
        _ => None,
    };
    events
        .iter()
        .filter(|event| tag(event).is_some())
        .map(|event| match &event.body {
            Some(Body::ProcessExec(exec)) => (event, exec.argv[2].as_str()),
            _ => (event, ""),
        })
        .collect()
}

/// A runner that is bash under another name: it gives `variables` to each of its steps.
fn shell_runner(directory: &Path, home: &Path, name: &str, variables: &str, repository: &str) -> Running {
    let program = directory.join(name);
    fs::copy("/bin/bash", &program).unwrap();
    let script = format!(
        "for step in one two; do\n  {variables} /bin/sh -c 'for i in 1 2 3; do /bin/true tag {repository}; cat \"$HOME/.netrc\" > /dev/null; sleep 0.1; done; setsid /bin/true tag {repository}; :'\ndone\n"
    );
    Launch::new(name, &program, &directory.join("logs"))
        .clean_environment()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .args(["-c", &script])
        .spawn()
        .unwrap()
}

#[test]
fn runners_of_several_vendors_at_once_keep_their_jobs_apart() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let agent = Agent::start_with_json(&Settings::new(directory.path(), &home).with(OWN_PLATFORM)).unwrap();
    let job = |index: usize| {
        let repository = format!("acme/github-{index}");
        let script = format!(
            "for i in 1 2 3 4 5; do /bin/true tag {repository}; cat \"$HOME/.netrc\" > /dev/null; sleep 0.1; done\n"
        );
        Job::new(&repository, &format!("{index}"), "loop", &script)
    };
    let plan = Plan { at_once: 3, jobs: (0..6).map(job).collect() };
    let github = fakerunner::start(directory.path(), &home, &plan).unwrap();
    let act = shell_runner(
        directory.path(),
        &home,
        "act",
        "GITHUB_ACTIONS=true GITHUB_JOB=build GITHUB_RUN_ID=1 GITHUB_REPOSITORY=acme/act GITHUB_ACTION=$step",
        "acme/act",
    );
    let own = shell_runner(
        directory.path(),
        &home,
        "acme-runner",
        "ACME_BUILD=7 ACME_REPOSITORY=acme/own ACME_STEP=$step",
        "acme/own",
    );
    for mut runner in [github, act, own] {
        let status = runner.wait(PATIENCE).unwrap();
        assert!(status.success(), "{}", runner.tail(20));
    }
    agent.wait_for("the end of all jobs", PATIENCE, |events| finished_jobs(events).count() >= 8).unwrap();
    let (_, events) = agent.stop().unwrap();

    let found = tagged(&events);
    for (event, repository) in &found {
        assert_eq!(repository_of(event), Some(*repository), "{}", describe(event));
    }
    assert_eq!(found.len(), 6 * 5 + 2 * 2 * 4, "{}", describe_all(&events));
    let netrc = home.join(".netrc").display().to_string();
    let outside = events.iter().filter(|event| is_access_to(event, &netrc) && event.job.is_none());
    assert_eq!(outside.count(), 0);
    let platform = |event: &AuditEvent| event.job.as_ref().map(|job| job.platform.clone());
    let mut platforms: Vec<String> = events.iter().filter_map(platform).collect();
    platforms.sort();
    platforms.dedup();
    assert_eq!(platforms, ["acme-ci", "act", "github-actions"]);
    assert_eq!(finished_jobs(&events).count(), 8);
    assert_eq!(lost(&events), 0);
}

/// Two jobs after each other on a host that lasts.
struct Lasting {
    directory: tempfile::TempDir,
    home: PathBuf,
}

impl Lasting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = make_home(directory.path()).unwrap();
        fs::create_dir_all(home.join(".local/bin")).unwrap();
        Self { directory, home }
    }

    fn run(&self, first: &str, second: &str) -> Vec<AuditEvent> {
        let agent = Agent::start_with_json(&Settings::new(self.directory.path(), &self.home)).unwrap();
        // The first job's own end, and what it leaves, come before the second begins.
        let second = format!("sleep 2\n{second}");
        let jobs =
            vec![Job::new("acme/first", "1", "leave", first), Job::new("acme/second", "2", "use", &second)];
        let plan = Plan { at_once: 1, jobs };
        let mut runner = fakerunner::start(self.directory.path(), &self.home, &plan).unwrap();
        assert!(runner.wait(PATIENCE).unwrap().success(), "{}", runner.tail(20));
        agent
            .wait_for("the end of both jobs", PATIENCE, |events| finished_jobs(events).count() >= 2)
            .unwrap();
        agent.stop().unwrap().1
    }
}

fn spoofs(events: &[AuditEvent]) -> Vec<(SpoofKind, Option<&str>)> {
    let spoof = |event: &AuditEvent| match &event.body {
        Some(Body::IdentitySpoof(spoof)) => Some(spoof.kind()),
        _ => None,
    };
    events.iter().filter_map(|event| Some((spoof(event)?, repository_of(event)))).collect()
}

#[test]
fn what_a_job_leaves_to_the_next_is_told_with_both() {
    let host = Lasting::new();
    let first = r#"
printf '#!/bin/sh\nexit 0\n' > "$HOME/.local/bin/tool"
chmod +x "$HOME/.local/bin/tool"
cp /bin/true "$HOME/.local/bin/compiled"
echo 'export X=1' > "$HOME/.bashrc"
echo '[user] name = x' > "$HOME/.gitconfig"
mkdir -p "$HOME/.docker"
echo '{"auths": {"registry.test": {"auth": "ZmFrZTpmYWtl"}}}' > "$HOME/.docker/config.json"
"$HOME/.local/bin/compiled"
"#;
    let second = r#"
"$HOME/.local/bin/tool"
"$HOME/.local/bin/compiled"
cat "$HOME/.bashrc" "$HOME/.gitconfig" > /dev/null
"#;
    let events = host.run(first, second);
    let contamination = |event: &AuditEvent| match &event.body {
        Some(Body::Contamination(found)) => {
            assert_eq!(found.writer.as_ref().map(|job| job.repository.as_str()), Some("acme/first"));
            assert_eq!((repository_of(event), step_of(event)), (Some("acme/second"), "use"));
            Some((found.path.rsplit('/').next().unwrap_or_default().to_owned(), found.r#use()))
        }
        _ => None,
    };
    let mut found: Vec<(String, ContaminationUse)> = events.iter().filter_map(contamination).collect();
    found.sort();
    let expected = [
        (".bashrc", ContaminationUse::Sourced),
        (".gitconfig", ContaminationUse::Configuration),
        ("compiled", ContaminationUse::Executed),
        ("tool", ContaminationUse::Executed),
    ];
    assert_eq!(found, expected.map(|(name, how)| (name.to_owned(), how)), "{}", describe_all(&events));
    let left = |event: &&AuditEvent| matches!(&event.body, Some(Body::CredentialLeftBehind(left)) if left.path.ends_with("/.docker/config.json"));
    let left: Vec<&AuditEvent> = events.iter().filter(left).collect();
    let [left] = left[..] else { panic!("{}", describe_all(&events)) };
    assert_eq!(repository_of(left), Some("acme/first"));
    assert_eq!(lost(&events), 0, "{}", describe_all(&events));
}

#[test]
fn a_process_that_outlives_its_job_stays_its_jobs() {
    let host = Lasting::new();
    let first = r#"(setsid nohup env -i HOME="$HOME" PATH="$PATH" sh -c '(sleep 1.5; /bin/true tag acme/first; cat "$HOME/.netrc" > /dev/null) & exit' > /dev/null 2>&1 &)
"#;
    let events = host.run(first, "/bin/true tag acme/second\n");
    let found = tagged(&events);
    assert_eq!(found.len(), 2, "{}", describe_all(&events));
    for (event, repository) in &found {
        assert_eq!(repository_of(event), Some(*repository), "{}", describe(event));
        assert_eq!(event.after_job, *repository == "acme/first", "{}", describe(event));
    }
    let netrc = host.home.join(".netrc").display().to_string();
    let reads: Vec<&AuditEvent> = events.iter().filter(|event| is_access_to(event, &netrc)).collect();
    let [read] = reads[..] else { panic!("{}", describe_all(&events)) };
    assert_eq!((repository_of(read), step_of(read), read.after_job), (Some("acme/first"), "leave", true));
    let outlived = |event: &&AuditEvent| matches!(&event.body, Some(Body::Escape(escape)) if escape.kind() == EscapeKind::OutlivedJob);
    assert!(events.iter().any(|event| outlived(&event) && repository_of(event) == Some("acme/first")));
}

#[test]
fn attempts_to_be_another_job_or_a_runner_are_told_and_change_nothing() {
    let host = Lasting::new();
    fs::create_dir_all(host.directory.path().join("runner")).unwrap();
    fs::write(host.directory.path().join("runner/.runner"), "{\"agentId\": 1}\n").unwrap();
    let first = format!(
        r"
GITHUB_REPOSITORY=other/repo GITHUB_RUN_ID=99 /bin/true tag acme/first
mkdir -p /tmp/buildtrail-second-$$/bin
cp {runner}/.runner /tmp/buildtrail-second-$$/.runner
cp /bin/bash /tmp/buildtrail-second-$$/bin/Runner.Worker
GITHUB_REPOSITORY=other/repo GITHUB_ACTION=innocent /tmp/buildtrail-second-$$/bin/Runner.Worker -c '/bin/true tag acme/first; :'
cp /bin/true /tmp/buildtrail-second-$$/systemd-run
/tmp/buildtrail-second-$$/systemd-run --user sh -c x
echo '# changed' >> {runner}/bin/node
rm -rf /tmp/buildtrail-second-$$
",
        runner = host.directory.path().join("runner").display()
    );
    let events = host.run(&first, "/bin/true tag acme/second\n");
    for (event, repository) in tagged(&events) {
        assert_eq!(repository_of(event), Some(repository), "{}", describe(event));
        assert_eq!(step_of(event), if repository == "acme/first" { "leave" } else { "use" });
    }
    let found = spoofs(&events);
    for kind in [
        SpoofKind::IdentityVariables,
        SpoofKind::RunnerProgram,
        SpoofKind::RunnerRegistration,
        SpoofKind::RunnerFiles,
    ] {
        assert!(found.contains(&(kind, Some("acme/first"))), "{kind:?}: {}", describe_all(&events));
    }
    assert!(found.iter().all(|(_, repository)| *repository == Some("acme/first")), "{found:?}");
    assert_eq!(finished_jobs(&events).count(), 2);
    let delegation =
        |event: &&AuditEvent| matches!(&event.body, Some(Body::Delegation(to)) if to.service == "systemd");
    assert_eq!(events.iter().filter(delegation).count(), 1, "{}", describe_all(&events));
}

#[test]
fn a_job_that_ran_before_the_agent_is_recovered_and_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let started = directory.path().join("started");
    let go = directory.path().join("go");
    let script = format!(
        "touch {}\nwhile [ ! -e {} ]; do sleep 0.1; done\n/bin/true tag acme/early\n",
        started.display(),
        go.display()
    );
    let mut job = Job::new("acme/early", "5", "wait", &script);
    job.steps
        .push(Step { id: "later".to_owned(), work: Work::Script("/bin/true tag acme/early\n".to_owned()) });
    let mut runner =
        fakerunner::start(directory.path(), &home, &Plan { at_once: 1, jobs: vec![job] }).unwrap();
    runner.wait_until("the step to run", PATIENCE, || started.exists()).unwrap();
    let agent = Agent::start_with_json(&Settings::new(directory.path(), &home)).unwrap();
    fs::write(&go, "").unwrap();
    assert!(runner.wait(PATIENCE).unwrap().success(), "{}", runner.tail(20));
    agent.wait_for("the job's end", PATIENCE, |events| finished_jobs(events).count() == 1).unwrap();
    let (_, events) = agent.stop().unwrap();
    let begun: Vec<bool> = events
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::JobStarted(started)) => Some(started.already_running),
            _ => None,
        })
        .collect();
    assert_eq!(begun, [true]);
    let found = tagged(&events);
    let steps: Vec<&str> = found.iter().map(|(event, _)| step_of(event)).collect();
    assert_eq!(steps, ["wait", "later"], "{}", describe_all(&events));
    for (event, repository) in found {
        assert_eq!(repository_of(event), Some(repository));
        assert_eq!(event.job.as_ref().map(buildtrail_proto::v1::Job::assurance), Some(Assurance::Asserted));
    }
}
