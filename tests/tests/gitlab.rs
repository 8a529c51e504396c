//! A GitLab pipeline on this host, run by gitlab-ci-local: two jobs at once in one process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{fs, path::Path, time::Duration};

use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    emulated::{self, JOBS, STEPS},
    events::{describe_all, finished_jobs, lost},
    paths,
    process::Launch,
    scene::make_home,
};

const DEADLINE: Duration = Duration::from_mins(2);

/// What one script of a job does: it reads its secret, as itself and under another job's name, and leaves a daemon behind.
fn script(directory: &Path, job: usize, step: usize) -> String {
    let [own, daemon] = emulated::secrets_of(directory, job, step).map(|path| path.display().to_string());
    let lines = [
        format!("cat {own} > /dev/null"),
        format!("env CI_PROJECT_PATH=other/repo CI_JOB_NAME=other cat {own} > /dev/null"),
        format!("setsid --fork env -i sh -c 'sleep 0.3; cat {daemon}' < /dev/null > /dev/null 2>&1"),
    ];
    lines.map(|line| format!("    - \"{line}\"\n")).concat()
}

fn pipeline(directory: &Path) -> String {
    let job = |job| {
        let [first, second] = [1, 2].map(|step| script(directory, job, step));
        format!("job{job}:\n  script:\n{first}  after_script:\n{second}")
    };
    (1..=JOBS).map(job).collect()
}

fn git(project: &Path, arguments: &[&str]) {
    let launch = Launch::new("git", "git", &project.with_file_name("logs"))
        .args(["-c", "user.name=Octavia", "-c", "user.email=octavia@example.test"])
        .args(arguments)
        .directory(project);
    launch.run_successfully(DEADLINE).unwrap();
}

#[test]
fn jobs_of_one_pipeline_at_once_keep_what_is_theirs() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let home = make_home(directory).unwrap();
    emulated::make_secrets(directory).unwrap();
    let project = directory.join("project");
    fs::create_dir(&project).unwrap();
    fs::write(project.join(".gitlab-ci.yml"), pipeline(directory)).unwrap();
    git(&project, &["init", "--quiet"]);
    git(&project, &["remote", "add", "origin", "https://gitlab.example.test/acme/widgets.git"]);
    git(&project, &["add", "."]);
    git(&project, &["commit", "--quiet", "--message", "A pipeline"]);

    let settings = Settings::new(directory, &home).with(&emulated::settings(directory));
    let agent = Agent::start_with_json(&settings).unwrap();
    Launch::new("gitlab-ci-local", "node", &directory.join("logs"))
        .clean_environment()
        .env("HOME", &home)
        .arg(paths::gitlab_ci_local().unwrap())
        .directory(&project)
        .run_successfully(DEADLINE)
        .unwrap();
    let all_read = |events: &[AuditEvent]| {
        let read = emulated::all_secrets(directory).all(|path| !emulated::accesses(events, &path).is_empty());
        read && finished_jobs(events).count() >= JOBS
    };
    // Too few is for the assertions to tell, with more detail.
    let _ = agent.wait_for("every secret's reader and the jobs' ends", Duration::from_secs(20), all_read);
    let (_, events) = agent.stop().unwrap();
    let all = describe_all(&events);

    for job in 1..=JOBS {
        for step in 1..=STEPS {
            for path in emulated::secrets_of(directory, job, step) {
                let accesses = emulated::accesses(&events, &path);
                assert!(!accesses.is_empty(), "nobody read {}:\n{all}", path.display());
                for access in accesses {
                    let identity = access.job.as_ref().unwrap_or_else(|| panic!("outside jobs:\n{all}"));
                    assert_eq!(identity.platform, "gitlab-ci-local");
                    assert_eq!(identity.name, format!("job{job}"), "{all}");
                    assert_eq!(identity.repository, "acme/widgets");
                    assert_eq!(identity.server, "https://gitlab.example.test");
                    assert!(identity.url.starts_with("https://gitlab.example.test/acme/widgets/-/jobs/"));
                    assert_eq!(access.step.as_ref().unwrap().index as usize, step, "{all}");
                }
            }
        }
        let told = |event: &&AuditEvent| {
            matches!(event.body, Some(Body::IdentitySpoof(_)))
                && event.job.as_ref().is_some_and(|identity| identity.name == format!("job{job}"))
        };
        assert!(events.iter().any(|event| told(&event)), "job{job} called itself another unnoticed:\n{all}");
    }
    assert_eq!(finished_jobs(&events).count(), JOBS, "{all}");
    assert_eq!(lost(&events), 0);
}
