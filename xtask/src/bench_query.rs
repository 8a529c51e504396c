//! Measures how fast questions are answered over a large trail. Prints figures and goals; never a test.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{shell::say, workspace::Workspace};

/// Fills a collector with `events` events and lets people ask. Returns whether the goals were reached.
pub(crate) fn run(workspace: &Workspace, events: u64) -> Result<bool> {
    let directory = workspace.scratch().join("bench-query");
    // What a run that was ended left behind.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    say(&format!("▸ measuring questions over {events} events (built with optimisation)"));
    let arguments = ["run", "--quiet", "--release", "--package", "buildtrail-collector", "--example"];
    let status = workspace
        .cargo(&arguments)
        .args(["query_speed", "--"])
        .arg(&directory)
        .arg(events.to_string())
        .status()
        .context("cannot run the benchmark")?;
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    Ok(status.success())
}
