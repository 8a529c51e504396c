//! `buildtrail`: asks a collector what build jobs did with secrets and network, and verifies its log.
//!
//! In: flags, a profile directory, answers of a collector or a log directory. Out: tables for people, JSON for
//! programs, an exit code. Must never let text from a job reach a terminal unescaped, or panic because a reader of
//! its output went away.

mod args;
mod commands;
mod connect;
mod list;
mod output;

use std::{io, process::ExitCode};

use buildtrail_words::{columns, describe, display, formats, time};
use clap::Parser as _;

use crate::args::Cli;

/// Exit code for wrong usage and for a collector that cannot be asked.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to report a failure to print.
            let _ = error.print();
            return if error.use_stderr() { FAILED.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(code) => code.into(),
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("buildtrail: {}", display::safe(&format!("{error:#}"), true));
            FAILED.into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli))
}

/// `buildtrail … | head`: whoever read the output has seen enough.
fn is_closed_output(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
