//! Runs the demo; `cargo xtask demo` builds what it needs and starts it.

use anyhow::Result;
use clap::Parser;

/// Runs real build jobs under the real agent and shows their audit trail.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leave collector and agent running
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<()> {
    buildtrail_tests::demo::run(Arguments::parse().keep)
}
