//! Runs the tests and the demo.
//!
//! First the unit tests of all crates, then the end-to-end suites: each only where the machine lets it, else all its
//! tests count as skipped, with the reason. The last line is the sum.

use std::{
    io::{self, BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    compile, oracle,
    probe::{self, Need},
    shell::{self, say},
    tally::{Reader, Tally},
    workspace::Workspace,
};

/// A group of tests that is run or skipped as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// The unit tests of all crates.
    Unit,
    /// Wrong settings and missing rights.
    Usage,
    /// A real workflow, complete and apart from everything else.
    Job,
    /// Many jobs of an emulated runner.
    Runner,
    /// Runners of several vendors on one host that lasts.
    Shared,
    /// A thousand jobs.
    ManyJobs,
    /// Emulated runners of every platform.
    Platforms,
    /// A GitLab pipeline.
    Gitlab,
    /// A Buildbot master and worker.
    Buildbot,
    /// Jobs in the containers of a real engine.
    Containers,
    /// Hook scripts of runners.
    Hooks,
    /// Hostile text, and stopping.
    Robustness,
    /// The agent stopped, killed and replaced in the middle of a job.
    Restart,
    /// Agent and collector together.
    Delivery,
    /// Every way around the agent that is known.
    Evasion,
    /// Far more than anyone watches.
    Load,
    /// Hosts that get their identity by a token, and lose it.
    Enrolment,
    /// Agent and collector, killed again and again.
    Kills,
    /// Networks, disks and clocks that fail.
    Faults,
    /// The web pages in a real browser.
    Web,
}

/// The end-to-end suites in the order in which they run.
const END_TO_END: [Suite; 19] = [
    Suite::Usage,
    Suite::Job,
    Suite::Runner,
    Suite::Shared,
    Suite::ManyJobs,
    Suite::Platforms,
    Suite::Gitlab,
    Suite::Buildbot,
    Suite::Containers,
    Suite::Hooks,
    Suite::Robustness,
    Suite::Restart,
    Suite::Delivery,
    Suite::Evasion,
    Suite::Load,
    Suite::Enrolment,
    Suite::Kills,
    Suite::Faults,
    Suite::Web,
];

impl Suite {
    /// The test target in the package buildtrail-tests.
    fn target(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Usage => "usage",
            Self::Job => "job",
            Self::Runner => "runner",
            Self::Shared => "shared",
            Self::ManyJobs => "many_jobs",
            Self::Platforms => "platforms",
            Self::Gitlab => "gitlab",
            Self::Buildbot => "buildbot",
            Self::Containers => "containers",
            Self::Hooks => "hooks",
            Self::Robustness => "robustness",
            Self::Restart => "restart",
            Self::Delivery => "delivery",
            Self::Evasion => "evasion",
            Self::Load => "load",
            Self::Enrolment => "enrolment",
            Self::Kills => "kills",
            Self::Faults => "faults",
            Self::Web => "web",
        }
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Unit | Self::Usage | Self::Kills => &[],
            Self::Faults => &[Need::Namespaces],
            Self::Web => &[Need::Browser],
            Self::Job => &[Need::Ebpf, Need::Namespaces, Need::Act],
            Self::Containers => &[Need::Ebpf, Need::Act, Need::Engine],
            Self::Runner
            | Self::Shared
            | Self::ManyJobs
            | Self::Platforms
            | Self::Gitlab
            | Self::Buildbot
            | Self::Hooks
            | Self::Robustness
            | Self::Restart
            | Self::Delivery
            | Self::Evasion
            | Self::Load
            | Self::Enrolment => &[Need::Ebpf],
        }
    }
}

/// Runs the chosen suites, all of them when none is chosen. Returns whether nothing failed.
pub(crate) fn run(workspace: &Workspace, only: &[Suite]) -> Result<bool> {
    let chosen = |suite: Suite| only.is_empty() || only.contains(&suite);
    compile::everything(workspace, false)?;
    let mut total = Tally::default();
    if chosen(Suite::Unit) {
        total += unit(workspace)?;
    }
    let suites: Vec<Suite> = END_TO_END.into_iter().filter(|suite| chosen(*suite)).collect();
    if !suites.is_empty() {
        shell::run("building the end-to-end tests", end_to_end(workspace, None).arg("--no-run"))?;
    }
    for suite in suites {
        total += run_end_to_end(workspace, suite)?;
    }
    say(&total.to_string());
    Ok(total.failed == 0)
}

/// Builds everything and runs the demo.
pub(crate) fn demo(workspace: &Workspace, keep: bool) -> Result<()> {
    compile::everything(workspace, false)?;
    let mut command = Command::new(workspace.binaries().join("demo"));
    if keep {
        command.arg("--keep");
    }
    shell::run("the demo", surroundings(workspace, &mut command))
}

fn unit(workspace: &Workspace) -> Result<Tally> {
    let arguments = ["test", "--workspace", "--no-fail-fast"];
    let mut build = workspace.cargo(&arguments);
    build.arg("--no-run").args(shell::cargo_verbosity());
    shell::run("building the unit tests", &mut build)?;
    say("▸ unit tests");
    let mut run = workspace.cargo(&arguments);
    run.env("BUILDTRAIL_OIDC_PROVIDER", workspace.oidc_provider());
    let mut skipped = Tally::default();
    if probe::obstacle(workspace, Need::Namespaces).is_none() {
        // Those that need root say so where they stand; elsewhere they count as skipped.
        run.args(["--", "--include-ignored"]);
        if let Some(reason) = oracle::obstacle(workspace) {
            run.args(["--skip", oracle::TEST]);
            skipped = oracle::skip(&reason);
        }
    }
    let mut tally = follow(&mut run, false)?;
    tally += skipped;
    Ok(tally)
}

fn run_end_to_end(workspace: &Workspace, suite: Suite) -> Result<Tally> {
    if let Some(reason) = obstacle(workspace, suite) {
        return skip(workspace, suite, &reason);
    }
    say(&format!("▸ end to end: {}", suite.target()));
    follow(end_to_end(workspace, Some(suite)).args(["--", "--test-threads=1"]), true)
}

fn obstacle(workspace: &Workspace, suite: Suite) -> Option<String> {
    suite.needs().iter().find_map(|need| probe::obstacle(workspace, *need))
}

fn skip(workspace: &Workspace, suite: Suite, reason: &str) -> Result<Tally> {
    let mut command = end_to_end(workspace, Some(suite));
    let list = shell::answer(command.args(["--", "--list", "--format=terse"]))
        .with_context(|| format!("cannot list the tests of the suite {}", suite.target()))?;
    let names: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    say(&format!("▸ end to end: {}: skipped: {reason}", suite.target()));
    for name in &names {
        say(&format!("    test {name} ... skipped"));
    }
    Ok(Tally { skipped: u64::try_from(names.len())?, ..Tally::default() })
}

/// `cargo test` for one end-to-end suite, or all.
fn end_to_end(workspace: &Workspace, suite: Option<Suite>) -> Command {
    let mut command = workspace.cargo(&["test", "--package", "buildtrail-tests", "--features", "e2e"]);
    match suite {
        Some(suite) => command.args(["--test", suite.target()]),
        None => command.arg("--tests").args(shell::cargo_verbosity()),
    };
    surroundings(workspace, &mut command);
    command
}

/// Tells tests and demo where the programs are.
fn surroundings<'a>(workspace: &Workspace, command: &'a mut Command) -> &'a mut Command {
    command
        .env("BUILDTRAIL_BIN_DIR", workspace.binaries())
        .env("BUILDTRAIL_ACT", workspace.act())
        .env("BUILDTRAIL_TOOLS", workspace.tools())
        .env("BUILDTRAIL_OIDC_PROVIDER", workspace.oidc_provider())
        .env("RUST_BACKTRACE", "0")
}

/// Runs a test command, shows what matters of its output, and counts.
fn follow(command: &mut Command, each: bool) -> Result<Tally> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot run cargo")?;
    // The command holds the pipe's other end as well; the reader below ends when the last one is closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tests = Reader::new(each);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read what the tests say")?;
        if let Some(shown) = tests.take(&String::from_utf8_lossy(&line)) {
            say(&shown);
        }
    }
    let status = child.wait().context("cannot wait for the tests")?;
    let mut tally = tests.total;
    if !status.success() && tally.failed == 0 {
        // Ended without a verdict: killed, or not even built.
        say(&format!("    the tests ended with {status}"));
        tally.failed = 1;
    }
    Ok(tally)
}
