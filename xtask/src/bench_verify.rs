//! Measures how fast a log is verified. Prints a figure and its bound; never a test.

use anyhow::{Context as _, Result};

use crate::{
    shell::{answer, say},
    workspace::Workspace,
};

/// Events that must be verified in a second.
const MIN_EVENTS_PER_SECOND: u64 = 300_000;
/// The best of these counts: what else the machine does only slows it down.
const ROUNDS: u32 = 3;

/// Verifies a log of `events` events, a few times. Returns whether it was fast enough.
pub(crate) fn run(workspace: &Workspace, events: u64) -> Result<bool> {
    say("▸ verifying a log that is as a busy host would write it (built with optimisation)");
    let mut best = 0;
    for _ in 0..ROUNDS {
        let events = events.to_string();
        let arguments = ["run", "--quiet", "--release", "--package", "buildtrail-evidence", "--example"];
        let mut command = workspace.cargo(&arguments);
        let line = answer(command.args(["verify_speed", "--", &events]));
        let line = line.context("the benchmark failed; run it by hand to see why")?;
        say(&format!("    {}", line.trim()));
        let figure =
            line.trim().strip_suffix(" events/s").and_then(|rest| rest.rsplit(' ').next()?.parse().ok());
        best = best.max(figure.context("the benchmark prints no figure")?);
    }
    let within = best >= MIN_EVENTS_PER_SECOND;
    let verdict = if within { "within" } else { "BELOW" };
    say(&format!("    best: {best} events/s ({verdict} the bound of {MIN_EVENTS_PER_SECOND} events/s)"));
    Ok(within)
}
