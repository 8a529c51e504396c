//! `buildtrail-agent check`: what this host can see, hook by hook. Attaches everything for a moment and detaches it.

use std::io::{self, Write};

use crate::{
    config::Config,
    run::{self, RunError},
    sensor::{Sensor, SensorError, coverage::CoverageReport, pins},
};

/// Attaches everything, beside what a running agent has attached.
///
/// # Errors
///
/// See [`Sensor::start`].
pub fn sensor(config: &Config) -> Result<Sensor, SensorError> {
    let mut config = config.clone();
    config.sensor.pin_directory = None;
    run::start_sensor(&config)
}

/// Detaches what is pinned, and says so.
///
/// # Errors
///
/// When an agent runs, the directory cannot be read, or `out` cannot be written.
pub fn detach(config: &Config, out: &mut impl Write) -> Result<(), RunError> {
    let failed = |what| move |source| RunError::System { what, source };
    let Some(directory) = &config.sensor.pin_directory else {
        return writeln!(out, "sensor.pin_directory is not set: nothing stays attached when an agent stops")
            .map_err(failed("cannot write the report"));
    };
    let builds = pins::detach_all(directory)?;
    writeln!(out, "detached the programs of {builds} build(s) below {}", directory.display())
        .map_err(failed("cannot write the report"))
}

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
