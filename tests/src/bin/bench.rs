//! Measures spool and delivery; `cargo xtask bench` runs it.

use std::process::ExitCode;

use anyhow::Result;
use buildtrail_tests::bench::{self, What};
use clap::Parser;

/// Measures, prints figures, and fails when a goal is missed.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let reached = bench::run(&Arguments::parse().what).await?;
    Ok(if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
