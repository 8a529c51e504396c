//! `buildtrail-agent check`: what this host can see, hook by hook. Attaches everything for a moment and detaches it.

use std::io::{self, Write};

use crate::{
    config::Config,
    run::{self, RunError},
    sensor::{
        Sensor, SensorError,
        btf::{Btf, VMLINUX},
        coverage::CoverageReport,
        pins,
        prototypes::{PROTOTYPES, Place, found, is_same},
    },
};

/// Attaches everything, beside what a running agent has attached.
///
/// # Errors
///
/// See [`Sensor::start`].
pub fn sensor(config: &Config) -> Result<Sensor, SensorError> {
    let mut config = config.clone();
    config.sensor.pin_directory = None;
    run::start_sensor(&config).map(|(sensor, _)| sensor)
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

/// Writes how this kernel's functions and tracepoints compare with those that the programs were written for. Returns whether
/// none differs.
///
/// # Errors
///
/// When the kernel's type information cannot be read, or `out` cannot be written.
pub fn print_prototypes(out: &mut impl Write) -> io::Result<bool> {
    let data = std::fs::read(VMLINUX)?;
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let btf = Btf::parse(&data).map_err(malformed)?;
    let mut all = true;
    for (place, name, expected) in PROTOTYPES {
        let word = match place {
            Place::Function => "fentry",
            Place::Tracepoint => "tp_btf",
        };
        let verdict = match found(&btf, *place, name).map_err(malformed)? {
            None => "missing".to_owned(),
            Some(found) if is_same(&found, expected) => "same".to_owned(),
            Some(found) => {
                all = false;
                format!("DIFFERS: ({}), expected ({})", found.join(", "), expected.join(", "))
            }
        };
        writeln!(out, "{word}/{name} {verdict}")?;
    }
    Ok(all)
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
