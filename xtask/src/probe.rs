//! Finds out, by trying, what this machine lets the end-to-end tests do.

use std::{fs, process::Command};

use crate::{setup, shell::answer, workspace::Workspace};

/// Exit codes of the agent that tell about the machine, not about the agent.
const NOT_PERMITTED: i32 = 3;
const NO_HOOK: i32 = 4;

/// What an end-to-end suite needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The agent's eBPF programs load and attach.
    Ebpf,
    /// Network and mount namespaces can be made.
    Namespaces,
    /// The workflow runner works.
    Act,
    /// A container engine can be started.
    Engine,
    /// A browser and its driver are installed.
    Browser,
}

/// Why what a suite needs cannot be had; nothing when it can.
pub(crate) fn obstacle(workspace: &Workspace, need: Need) -> Option<String> {
    if !matches!(need, Need::Act | Need::Browser) && !setup::is_root() {
        return Some("needs root".to_owned());
    }
    match need {
        Need::Ebpf => ebpf_obstacle(workspace),
        Need::Namespaces => answer(Command::new("unshare").args(["--net", "--mount", "true"]))
            .is_none()
            .then(|| "network and mount namespaces cannot be made here".to_owned()),
        Need::Act => answer(Command::new(workspace.act()).arg("--version"))
            .is_none()
            .then(|| "act does not run here".to_owned()),
        Need::Engine => {
            let there = |program: &str| answer(Command::new(program).arg("--version")).is_some();
            let overlay =
                fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\toverlay\n"));
            (!there("dockerd") || !there("docker") || !overlay).then(|| {
                "no container engine: dockerd, docker and overlay file systems are needed".to_owned()
            })
        }
        Need::Browser => browser_obstacle(workspace),
    }
}

fn ebpf_obstacle(workspace: &Workspace) -> Option<String> {
    if !has_cgroup2() {
        return Some("no cgroup2 file system is mounted, and none can be".to_owned());
    }
    let agent = workspace.binaries().join("buildtrail-agent");
    let output = Command::new(&agent).arg("check").output().ok()?;
    // Anything else is a fault of the agent, which the tests are to show.
    let code = output.status.code().filter(|code| [NOT_PERMITTED, NO_HOOK].contains(code))?;
    let reason = String::from_utf8_lossy(&output.stderr);
    let last = reason.lines().last().unwrap_or_default();
    Some(format!("`buildtrail-agent check` ends with code {code}: {last}"))
}

fn browser_obstacle(workspace: &Workspace) -> Option<String> {
    if let Err(error) = setup::browser(workspace) {
        return Some(format!("{error:#}"));
    }
    let works = answer(Command::new("chromedriver").arg("--version"))
        .and_then(|_| answer(Command::new("chromium").args(["--no-sandbox", "--version"])));
    works.is_none().then(|| "chromium or its driver does not run here".to_owned())
}

fn has_cgroup2() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(" - cgroup2 "))
        || answer(Command::new("unshare").args(["--mount", "mount", "-t", "cgroup2", "none", "/mnt"]))
            .is_some()
}
