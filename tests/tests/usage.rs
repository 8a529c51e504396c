//! What an operator is told who lacks the rights or mistyped a setting.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_tests::{
    paths,
    process::{Finished, Launch},
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Documented exit codes of the agent.
const WRONG_SETTINGS: i32 = 2;
const NOT_PERMITTED: i32 = 3;

/// A directory that everyone may enter, with a copy of the agent that everyone may run.
fn public_copy() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let agent = directory.path().join("buildtrail-agent");
    fs::copy(paths::binary("buildtrail-agent").unwrap(), &agent).unwrap();
    (directory, agent)
}

fn run_as_nobody(directory: &Path, agent: &Path, arguments: &[&str]) -> Finished {
    let launch = if nix::unistd::geteuid().is_root() {
        Launch::new("agent", "setpriv", directory)
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(agent)
    } else {
        Launch::new("agent", agent, directory)
    };
    launch.args(arguments).run(DEADLINE).unwrap()
}

#[test]
fn without_root_the_agent_says_so_in_one_sentence() {
    let (directory, agent) = public_copy();
    let done = run_as_nobody(directory.path(), &agent, &["run", "--output", "json"]);
    assert_eq!(done.status.code(), Some(NOT_PERMITTED), "{}", done.errors());
    assert_eq!(done.errors().lines().count(), 1, "{}", done.errors());
    assert!(done.errors().contains("root"), "{}", done.errors());
    assert!(done.stdout.is_empty(), "{}", done.text());
}

#[test]
fn a_mistyped_setting_is_named_with_file_line_and_the_right_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    fs::write(&config, "[catalog]\nhoms = [\"/srv/home\"]\n").unwrap();
    let done = Launch::new("agent", paths::binary("buildtrail-agent").unwrap(), directory.path())
        .args(["run", "--output", "json", "--config"])
        .arg(&config)
        .run(DEADLINE)
        .unwrap();
    assert_eq!(done.status.code(), Some(WRONG_SETTINGS), "{}", done.errors());
    for part in [config.to_str().unwrap(), "2", "homs", "homes"] {
        assert!(done.errors().contains(part), "{part:?} is missing in: {}", done.errors());
    }
    assert!(done.stdout.is_empty(), "{}", done.text());
}
