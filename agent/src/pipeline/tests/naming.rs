//! Runners that name their jobs late, go on after them, or become daemons.

use super::*;

const SHELL: u32 = RUNNER + 10;
const OTHER_SHELL: u32 = RUNNER + 20;

fn gitlab(job: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![("GITLAB_CI", "true"), ("CI_JOB_ID", job), ("CI_PROJECT_PATH", job), ("GITLAB_ENV", "/e")]
}

/// A history with a runner that has these arguments.
fn with_runner(path: &str, arguments: &[&str]) -> History {
    let mut history = History::new();
    let exec = Exec {
        filename: path.as_bytes().to_vec(),
        arguments: arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        parent_pid: 1,
        ..Exec::default()
    };
    history.record(RUNNER, What::Exec(Box::new(exec)));
    history
}

#[test]
fn the_first_process_that_shows_the_variables_names_the_whole_tree_and_no_later_one_does() {
    let mut history = with_runner("/usr/bin/gitlab-runner", &["gitlab-runner", "run"]);
    for shell in [SHELL, OTHER_SHELL] {
        history.fork(RUNNER, shell);
        history.exec(shell, RUNNER, "/bin/bash", &[]);
        // `: | eval`: everything happens in a child that executes nothing.
        history.fork(shell, shell + 1);
    }
    for (shell, job) in [(SHELL, "acme/one"), (OTHER_SHELL, "acme/two")] {
        history.fork(shell + 1, shell + 2);
        history.exec(shell + 2, shell + 1, "/bin/mkdir", &gitlab(job));
    }
    // The job's script calls itself the other one.
    history.fork(SHELL + 1, SHELL + 3);
    history.exec(SHELL + 3, SHELL + 1, "/bin/cat", &gitlab("acme/two"));
    history.connect(SHELL + 3, 1);
    history.connect(SHELL, 2);
    history.connect(OTHER_SHELL + 1, 3);
    let events = history.finish();
    let one = ("acme/one".to_owned(), "1".to_owned());
    let two = ("acme/two".to_owned(), "1".to_owned());
    assert_eq!(blamed(&events, "connection.opened"), [one.clone(), one.clone(), two.clone()]);
    assert_eq!(
        blamed(&events, "process.exec"),
        [one.clone(), one.clone(), two.clone(), two, one],
        "the shells' own executions are told, too"
    );
    assert_eq!(blamed(&events, "job.started").len(), 2);
}

#[test]
fn a_child_of_the_runner_that_showed_nothing_at_first_is_not_asked_again() {
    let mut history = with_runner("/usr/bin/woodpecker-agent", &["woodpecker-agent"]);
    let variables = [("CI", "woodpecker"), ("CI_REPO", "acme/other"), ("CI_PIPELINE_NUMBER", "1")];
    history.fork(RUNNER, STEP);
    history.exec(STEP, RUNNER, "/bin/sh", &[]);
    history.exec(STEP, RUNNER, "/bin/sh", &variables);
    history.fork(STEP, CHILD);
    history.exec(CHILD, STEP, "/bin/cat", &variables);
    history.connect(CHILD, 443);
    assert_eq!(blamed(&history.finish(), "job.started"), []);
}

#[test]
fn a_helper_that_starts_the_programs_does_not_count_as_the_first() {
    let mut history = with_runner("/usr/bin/java", &["java", "-jar", "/j/agent.jar"]);
    history.fork(RUNNER, STEP);
    history.exec(STEP, RUNNER, "/usr/lib/jvm/jspawnhelper", &[]);
    let variables = [("BUILD_TAG", "t"), ("JOB_NAME", "acme/widgets"), ("BUILD_NUMBER", "1")];
    history.exec(STEP, RUNNER, "/bin/sh", &variables);
    history.connect(STEP, 443);
    assert_eq!(blamed(&history.finish(), "connection.opened"), [widgets("sh")]);
}

#[test]
fn a_runner_that_becomes_a_daemon_stays_the_runner() {
    let mut history = with_runner("/usr/bin/woodpecker-agent", &["woodpecker-agent"]);
    let (middle, daemon) = (RUNNER + 5, RUNNER + 6);
    history.fork(RUNNER, middle);
    history.record(RUNNER, What::Exit { core_dumped: false });
    history.fork(middle, daemon);
    history.record(middle, What::Exit { core_dumped: false });
    history.fork(daemon, STEP);
    let variables = [
        ("CI", "woodpecker"),
        ("CI_REPO", "acme/widgets"),
        ("CI_PIPELINE_NUMBER", "1"),
        ("CI_STEP_NAME", "build"),
    ];
    history.exec(STEP, daemon, "/bin/sh", &variables);
    history.connect(STEP, 443);
    assert_eq!(blamed(&history.finish(), "connection.opened"), [widgets("build")]);
}

#[test]
fn hooks_of_a_bootstrap_are_steps_and_what_they_start_is_not() {
    let mut history = with_runner("/usr/bin/buildkite-agent", &["buildkite-agent", "start"]);
    let job = [
        ("BUILDKITE", "true"),
        ("BUILDKITE_JOB_ID", "j"),
        ("BUILDKITE_BUILD_NUMBER", "1"),
        ("BUILDKITE_REPO", "acme/widgets"),
    ];
    history.fork(RUNNER, SHELL);
    history.exec(SHELL, RUNNER, "/usr/bin/buildkite-agent", &job);
    for hook in [STEP, OTHER_SHELL] {
        history.fork(SHELL, hook);
        history.exec(hook, SHELL, "/bin/bash", &job);
    }
    history.fork(STEP, CHILD);
    history.exec(CHILD, STEP, "/bin/cat", &job);
    history.connect(CHILD, 1);
    history.connect(OTHER_SHELL, 2);
    history.connect(SHELL, 3);
    let events = history.finish();
    assert_eq!(blamed(&events, "connection.opened"), [widgets("1"), widgets("2"), widgets("")]);
}
