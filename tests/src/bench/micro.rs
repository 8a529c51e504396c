//! What hooks add to single operations on this machine: baseline and agent in turn, in processor time.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use buildtrail_evasion::micro::{self, Cost, Row, Unit};

use super::say;
use crate::{
    agent::{Agent, Settings},
    fakerunner::{self, Job, Plan},
    paths,
    process::Launch,
    scene::make_home,
};

const PATIENCE: Duration = Duration::from_mins(5);

/// Measures `rounds` times; whether every goal was reached.
pub(super) fn native(directory: &Path, rounds: u64) -> Result<bool> {
    let place = tempfile::tempdir_in(directory).context("cannot make a directory")?;
    let home = make_home(place.path())?;
    let secrets = place.path().join("micro");
    fs::create_dir_all(&secrets).context("cannot make a directory")?;
    micro::prepare(&secrets)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        without.extend(all_rows(place.path(), &home, 0)?);
        let settings = Settings::new(place.path(), &home).with(&micro::settings(&secrets));
        let agent = Agent::start_with_json(&settings)?;
        with.extend(all_rows(place.path(), &home, agent.pid())?);
        let (status, _events) = agent.stop()?;
        ensure!(status.success(), "the agent ended with {status}");
    }
    let (lines, reached) = micro::table(Unit::Nanoseconds, &micro::least(&without), &micro::least(&with));
    for line in &lines {
        say(&format!("    {line}"));
    }
    Ok(reached)
}

/// All rows once: those outside a job, then those of a job's step.
fn all_rows(directory: &Path, home: &Path, agent: u32) -> Result<Vec<(&'static Row, Cost)>> {
    let program = paths::binary("evasion")?;
    let (secrets, agent) = (directory.join("micro"), agent.to_string());
    let outside = Launch::new("micro", &program, &directory.join("logs"))
        .arg("micro")
        .arg(&secrets)
        .arg(&agent)
        .args(micro::names(false).split(' '));
    let outside = outside.run_successfully(PATIENCE)?;
    let measured = directory.join("measured");
    let script = format!(
        "{} micro {} {agent} {} > {}\n",
        program.display(),
        secrets.display(),
        micro::names(true),
        measured.display()
    );
    let plan = Plan { at_once: 1, jobs: vec![Job::new("acme/micro", "1", "micro", &script)] };
    let mut runner = fakerunner::start(directory, home, &plan)?;
    let status = runner.wait(PATIENCE)?;
    ensure!(status.success(), "the job ended with {status}: {}", runner.tail(20));
    let inside = fs::read_to_string(&measured).context("cannot read what a job measured")?;
    Ok([micro::parse(&outside.text()), micro::parse(&inside)].concat())
}
