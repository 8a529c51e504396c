//! Each CI platform's process tree, emulated from its public source: two jobs at once in one runner, daemons that they
//! leave behind, and attempts to be the other job. Every access must be on its own job and step, and none on another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{collections::BTreeSet, path::Path, time::Duration};

use buildtrail_proto::v1::{AuditEvent, Job, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    emulated::{self, Emulated, JOBS, STEPS},
    events::{describe_all, finished_jobs, lost},
    scene::make_home,
};

/// What must be known of a job.
struct Expected {
    platform: &'static str,
    emulated: Emulated,
    /// Further settings.
    settings: &'static str,
    /// Ids or names of the steps.
    steps: [[&'static str; STEPS]; JOBS],
    /// Server, run, job, actor, ref, commit, trigger, runner and link, as `{}` the number of the job.
    job: [&'static str; 9],
}

const SHA: &str = "1111111111111111111111111111111111111111";

fn observe(directory: &Path, expected: &Expected) -> Vec<AuditEvent> {
    let home = make_home(directory).unwrap();
    emulated::make_secrets(directory).unwrap();
    let settings = Settings::new(directory, &home)
        .with(&emulated::settings(directory))
        .with("[runners]\njob_idle_seconds = 2\n")
        .with(expected.settings);
    let agent = Agent::start_with_json(&settings).unwrap();
    let mut runner = expected.emulated.start(directory).unwrap();
    emulated::wait_for_jobs(&mut runner).unwrap();
    // Too few is for the assertions to tell, with more detail.
    let all_read = |events: &[AuditEvent]| {
        emulated::all_secrets(directory).all(|path| !emulated::accesses(events, &path).is_empty())
    };
    let _ = agent.wait_for("every secret's reader", Duration::from_secs(20), all_read);
    let mut runner = Some(runner);
    if expected.platform == "azure-pipelines" {
        // Its jobs end with their runner; elsewhere it goes on until the jobs have ended without it.
        runner.take().unwrap().stop().unwrap();
    }
    let _ = agent.wait_for("the end of all jobs", Duration::from_secs(20), |events| {
        finished_jobs(events).count() >= JOBS
    });
    if let Some(runner) = runner {
        runner.stop().unwrap();
    }
    let (status, events) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");
    events
}

fn fields(job: &Job) -> [&str; 9] {
    let Job { server, run_id, name, actor, r#ref, sha, trigger, runner_name, url, .. } = job;
    [server, run_id, name, actor, r#ref, sha, trigger, runner_name, url].map(String::as_str)
}

fn check(expected: &Expected) {
    let directory = tempfile::tempdir().unwrap();
    let events = observe(directory.path(), expected);
    let all = describe_all(&events);
    for job in 1..=JOBS {
        let own = expected.job.map(|text| text.replace("{}", &job.to_string()));
        for step in 1..=STEPS {
            for path in emulated::secrets_of(directory.path(), job, step) {
                let accesses = emulated::accesses(&events, &path);
                assert!(!accesses.is_empty(), "nobody read {}:\n{all}", path.display());
                for access in accesses {
                    let one = describe_all([access]);
                    let identity =
                        access.job.as_ref().unwrap_or_else(|| panic!("outside jobs: {one}\n{all}"));
                    assert_eq!(identity.platform, expected.platform, "{one}");
                    assert!(
                        identity.repository.contains(&emulated::repository(job)),
                        "another job's: {one}\n{all}"
                    );
                    assert_eq!(fields(identity), own.each_ref().map(String::as_str), "{one}");
                    let found = access.step.as_ref().unwrap_or_else(|| panic!("outside steps: {one}\n{all}"));
                    let wanted = expected.steps[job - 1][step - 1];
                    assert!(
                        [&found.id, &found.name].contains(&&wanted.to_owned()),
                        "{found:?}: {one}\n{all}"
                    );
                }
            }
        }
        let repository = emulated::repository(job);
        let spoofs = events.iter().filter(|event| matches!(event.body, Some(Body::IdentitySpoof(_))));
        let of_job = |event: &&AuditEvent| {
            event.job.as_ref().is_some_and(|identity| identity.repository.contains(&repository))
        };
        assert!(
            spoofs.filter(of_job).count() > 0,
            "{repository} called itself another job unnoticed:\n{all}"
        );
    }
    let ids = |wanted: fn(&Body) -> bool| -> Vec<&str> {
        let of_kind = events.iter().filter(|event| event.body.as_ref().is_some_and(wanted));
        of_kind.filter_map(|event| event.job.as_ref()).map(|job| job.job_id.as_str()).collect()
    };
    for told in
        [ids(|body| matches!(body, Body::JobStarted(_))), ids(|body| matches!(body, Body::JobFinished(_)))]
    {
        assert_eq!(told.len(), JOBS, "each job begins and ends once:\n{all}");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), JOBS, "{all}");
    }
    assert_eq!(lost(&events), 0);
}

const fn emulated(
    script: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
) -> Emulated {
    Emulated { script, program, arguments }
}

const GITLAB_JOB: [&str; 9] = [
    "https://gitlab.example.test",
    "70{}",
    "build",
    "octavia",
    "main",
    SHA,
    "push",
    "runner-1",
    "https://gitlab.example.test/acme/widgets-{}/-/jobs/80{}",
];

#[test]
fn gitlab_runners_shell_executor_gets_its_variables_through_a_pipe() {
    check(&Expected {
        platform: "gitlab",
        emulated: emulated("gitlab_shell.py", "gitlab-runner", &["run"]),
        settings: "",
        steps: [["1", "2"]; JOBS],
        job: GITLAB_JOB,
    });
}

#[test]
fn gitlab_runners_custom_executor_says_its_stages() {
    check(&Expected {
        platform: "gitlab",
        emulated: emulated("gitlab_custom.py", "gitlab-runner", &["run"]),
        settings: "",
        steps: [["get_sources", "step_script"]; JOBS],
        job: GITLAB_JOB,
    });
}

const FORGE_JOB: [&str; 9] = [
    "https://git.example.test",
    "70{}",
    "build",
    "octavia",
    "refs/heads/main",
    SHA,
    "push",
    "runner-1",
    "https://git.example.test/acme/widgets-{}/actions/runs/7{}",
];

#[test]
fn forgejos_runner_is_not_taken_for_githubs() {
    check(&Expected {
        platform: "forgejo",
        emulated: emulated("forgejo.py", "forgejo-runner", &["daemon"]),
        settings: "",
        steps: [["compile", "pack.zip"]; JOBS],
        job: FORGE_JOB,
    });
}

#[test]
fn giteas_runner_is_not_taken_for_githubs() {
    check(&Expected {
        platform: "gitea",
        emulated: emulated("forgejo.py", "act_runner", &["daemon"]),
        settings: "",
        steps: [["compile", "pack.zip"]; JOBS],
        job: FORGE_JOB,
    });
}

#[test]
fn jenkins_builds_freestyle_and_pipeline_share_one_jvm() {
    check(&Expected {
        platform: "jenkins",
        emulated: emulated("jenkins.py", "java", &["-jar", "/opt/jenkins/agent.jar"]),
        settings: "",
        steps: [["11", "12"], ["00000001", "00000002"]],
        job: [
            "https://jenkins.example.test/",
            "70{}",
            "jenkins-widgets-{}",
            "octavia",
            "main",
            SHA,
            "push",
            "runner-1",
            "https://jenkins.example.test/job/widgets/70{}/",
        ],
    });
}

#[test]
fn buildkites_hooks_and_command_are_the_bootstraps_children() {
    check(&Expected {
        platform: "buildkite",
        emulated: emulated("buildkite.py", "buildkite-agent", &["start"]),
        settings: "",
        steps: [["pre-command", "command"]; JOBS],
        job: [
            "https://ci.example.test",
            "70{}",
            "build",
            "octavia",
            "main",
            SHA,
            "webhook",
            "runner-1",
            "https://ci.example.test/acme/widgets/builds/70{}#00000000-0000-4000-8000-00000000000{}",
        ],
    });
}

#[test]
fn circlecis_task_agent_is_named_by_its_first_step() {
    check(&Expected {
        platform: "circleci",
        emulated: emulated("circleci.py", "circleci-runner", &["machine"]),
        settings: "",
        steps: [["1", "2"]; JOBS],
        job: [
            "https://circleci.example.test",
            "70{}",
            "build",
            "octavia",
            "main",
            SHA,
            "",
            "",
            "https://circleci.example.test/gh/acme/widgets-{}/70{}",
        ],
    });
}

#[test]
fn azure_pipelines_tasks_are_the_workers_children() {
    check(&Expected {
        platform: "azure-pipelines",
        emulated: emulated("one_process.py", "Agent.Worker", &[]),
        settings: "",
        steps: [["compile", "pack"]; JOBS],
        job: [
            "https://dev.example.test/acme/",
            "70{}",
            "build",
            "octavia",
            "refs/heads/main",
            SHA,
            "IndividualCI",
            "runner-1",
            "https://dev.example.test/acme/widgets/_build/results?buildId=70{}&view=logs&j=00000000-0000-4000-8000-00000000000{}",
        ],
    });
}

#[test]
fn teamcitys_builds_follow_each_other_in_one_agent() {
    check(&Expected {
        platform: "teamcity",
        emulated: emulated("one_process.py", "java", &["jetbrains.buildServer.agent.AgentMain"]),
        settings: "",
        steps: [["1", "2"]; JOBS],
        job: [
            "https://teamcity.example.test",
            "Widgets/70{}",
            "build",
            "",
            "",
            SHA,
            "",
            "",
            "https://teamcity.example.test/buildConfiguration/Widgets/70{}",
        ],
    });
}

#[test]
fn woodpeckers_local_backend_runs_workflows_side_by_side() {
    check(&Expected {
        platform: "woodpecker",
        emulated: emulated("one_process.py", "woodpecker-agent", &[]),
        settings: "",
        steps: [["compile", "pack"]; JOBS],
        job: [
            "https://ci.example.test",
            "70{}",
            "build",
            "octavia",
            "refs/heads/main",
            SHA,
            "push",
            "runner-1",
            "https://ci.example.test/repos/1/pipeline/70{}",
        ],
    });
}

#[test]
fn drones_exec_runner_runs_stages_side_by_side() {
    check(&Expected {
        platform: "drone",
        emulated: emulated("one_process.py", "drone-runner-exec", &["daemon"]),
        settings: "",
        steps: [["compile", "pack"]; JOBS],
        job: [
            "https://ci.example.test",
            "70{}",
            "build",
            "octavia",
            "refs/heads/main",
            SHA,
            "push",
            "runner-1",
            "https://ci.example.test/acme/widgets-{}/70{}/1",
        ],
    });
}

#[test]
fn a_platform_of_the_settings_is_known_like_those_of_the_agent() {
    check(&Expected {
        platform: "nightly-builder",
        emulated: emulated("one_process.py", "worker", &["--nightly"]),
        settings: r#"
[[platform]]
name = "nightly-builder"
runner = { executables = ["worker"], arguments = ["--nightly"] }
[[platform.job]]
when = ["NIGHTLY_RUN"]
ends = "when-idle"
fields = { repository = "${NIGHTLY_PROJECT}", run_id = "${NIGHTLY_RUN}", url = "https://nightly.example.test/${NIGHTLY_RUN}" }
step = { id = "${NIGHTLY_STEP}" }
"#,
        steps: [["compile", "pack"]; JOBS],
        job: ["", "70{}", "", "", "", "", "", "", "https://nightly.example.test/70{}"],
    });
}
