//! `buildtrail-agent check`: what this host can see, hook by hook. Attaches everything for a moment and detaches it.

use std::io::{self, Write};

use crate::sensor::coverage::CoverageReport;

/// Writes the report for people.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn print(report: &CoverageReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:<16} {:<5} served by", "hook", "tier")?;
    for hook in &report.hooks {
        writeln!(out, "{:<16} {:<5} {}", hook.hook, hook.letter(), hook.detail)?;
    }
    writeln!(out, "\nNot seen on this host:")?;
    for gap in &report.gaps {
        writeln!(out, "- {gap}")?;
    }
    Ok(())
}
