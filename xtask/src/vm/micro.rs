//! What the agent adds to single operations, counted in a guest whose clock ticks once for each instruction.
//!
//! In: a kernel. Out: the table of the rows, without the agent and with it, and how many of the events arrived.

use anyhow::{Context as _, Result, bail};
use buildtrail_evasion::micro::{Cost, ROWS, Row, Unit, parse, table};
use clap::ValueEnum as _;

use super::{
    boot::{self, Console, Speed},
    kernels::{self, Kernel},
    log_of, prepare,
};
use crate::{shell::say, workspace::Workspace};

/// Kernels whose instructions are counted.
pub(crate) const MEASURED: [Kernel; 2] = [Kernel::V6_12, Kernel::V6_1];
/// Events that must all be there, and the row that makes them.
const DELIVERED: [(&str, &str); 1] = [("watched", "secrets")];

/// Where to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Here,
    /// In a guest.
    Guest(Kernel),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "here" {
            return Ok(Self::Here);
        }
        let kernel = Kernel::from_str(text, false).ok().filter(|kernel| MEASURED.contains(kernel));
        kernel.map(Self::Guest).ok_or_else(|| "known are here, 6.12 and 6.1".to_owned())
    }
}

/// Boots the kernel and prints what was counted. Returns whether every goal was reached.
pub(crate) fn run(workspace: &Workspace, kernel: Kernel, debug: bool) -> Result<bool> {
    let (directory, initrd) = prepare(workspace, debug)?;
    let image = kernels::fetch(kernel, &directory)?;
    say(&format!("▸ counting instructions on kernel {}", kernel.name()));
    let console = boot::boot(
        &image,
        &initrd,
        kernel.processor(),
        "MICRO=1",
        Speed::InstructionsCounted,
        &log_of(&directory, kernel),
    )?;
    let said = format!("see {}", log_of(&directory, kernel).display());
    let without = costs(&console, "without").context(said.clone())?;
    let with = costs(&console, "with").context(said)?;
    let (lines, mut reached) = table(Unit::Instructions, &without, &with);
    for line in &lines {
        say(&format!("    {line}"));
    }
    for (row, section) in DELIVERED {
        let expected = ROWS.iter().find(|known| known.name == row).map_or(0, |row| row.count);
        let told = console.section(section).and_then(|section| section.text.trim().parse::<u32>().ok());
        let told = told.with_context(|| format!("the guest did not count its events: {section}"))?;
        say(&format!("    {section} told: {told} (of {expected}, and of the warm-up)"));
        reached &= told >= expected;
    }
    Ok(reached)
}

fn costs(console: &Console, which: &str) -> Result<Vec<(&'static Row, Cost)>> {
    let mut costs = Vec::new();
    for place in ["outside", "inside"] {
        let name = format!("{place}-{which}");
        let Some(section) = console.section(&name).filter(|section| section.status == 0) else {
            bail!("the guest did not measure {name}");
        };
        costs.extend(parse(&section.text));
    }
    Ok(costs)
}
