//! The whole way once, for a person to watch: real jobs, real agent, real collector, and the answers.
//!
//! In: the release binaries. Out: on standard output, what the collector knows about the job. Must leave nothing
//! running and no file behind, unless asked to.

use std::{
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use buildtrail_proto::v1::JobSummary;

use crate::{
    agent::Agent,
    collector::{self, Collector, Site},
    scene::Scene,
};

const REPOSITORY: &str = "acme/widgets";
const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the demo; `keep` leaves collector, agent and their files.
///
/// # Errors
/// When anything is not as it should be.
pub fn run(keep: bool) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("buildtrail-demo-").tempdir()?;
    let path = directory.path().to_owned();
    let site = part("certificates for collector, host and reader", || Site::prepare(&path))?;
    let collector = part("collector", || site.start("127.0.0.1:0", keep))?;
    let scene =
        part("the jobs' surroundings: home, repositories, stand-ins for the network, ssh-agent", || {
            Scene::prepare(&path)
        })?;
    let settings = collector::agent_settings(&site, &collector.address, scene.home());
    let agent =
        part("agent, with its eBPF programs attached", || Agent::start_with_collector(&settings, keep))?;
    part("two GitHub workflows at the same time, run by act", || scene.run())?;
    let jobs = part("the end of both jobs at the collector", || {
        collector.wait_for_finished_jobs(2, DELIVERY_DEADLINE)
    })?;
    show(&collector, &jobs)?;
    drop(scene);
    if keep {
        let path = directory.keep();
        return leave(collector, agent, &path);
    }
    stop(agent, collector)
}

/// The answers of the command line, as a person gets them.
fn show(collector: &Collector, jobs: &[JobSummary]) -> Result<()> {
    let job = jobs
        .iter()
        .filter_map(|summary| summary.job.as_ref())
        .find(|job| job.repository == REPOSITORY)
        .with_context(|| format!("the collector knows no job of {REPOSITORY}"))?;
    for question in [vec!["jobs"], vec!["show", &job.job_id], vec!["verify"]] {
        say(&format!("\n$ buildtrail {}", question.join(" ")))?;
        say(&collector.ask(&question)?.text())?;
    }
    check_losses(collector)
}

/// Asks for the loss events themselves: there must be none.
fn check_losses(collector: &Collector) -> Result<()> {
    let losses = collector.ask(&["events", "--kind", "loss", "--ndjson"])?;
    ensure!(losses.stdout.is_empty(), "events were lost:\n{}", losses.text());
    say("\nloss events: 0")
}

fn stop(agent: Agent, collector: Collector) -> Result<()> {
    let (status, _) = agent.stop()?;
    ensure!(status.success(), "the agent ended with {status}");
    collector.stop()?;
    say("everything stopped")
}

fn leave(collector: Collector, agent: Agent, directory: &Path) -> Result<()> {
    let (agent_id, collector_id) = (agent.pid(), collector.pid());
    say(&format!("\ncollector (process {collector_id}) and agent (process {agent_id}) go on. Ask with"))?;
    say(&format!("    {} jobs", collector.command_line()?))?;
    say("and stop them, the agent first so that it can deliver what it has, with")?;
    say(&format!(
        "    kill {agent_id}; tail --pid={agent_id} -f /dev/null; kill {collector_id}; rm -r {}",
        directory.display()
    ))?;
    agent.leave();
    collector.leave();
    Ok(())
}

/// Announces a part, does it, says how long it took.
fn part<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(&format!("  ▸ {what}"))?;
    let start = Instant::now();
    let outcome = work().with_context(|| format!("failed: {what}"))?;
    say(&format!("    done in {:.1} s", start.elapsed().as_secs_f64()))?;
    Ok(outcome)
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}
