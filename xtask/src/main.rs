//! Builds, demonstrates, tests and measures Buildtrail: `cargo xtask`.
//!
//! In: a clone, and a machine that may lack everything but cargo. Out: tools under the target directory, binaries, test
//! results. Must never change anything outside the target directory except by installing Debian packages, which it
//! announces.

mod bench;
mod bench_query;
mod bench_verify;
mod compile;
mod lint;
mod oracle;
mod probe;
mod runners;
mod setup;
mod shell;
mod suites;
mod tally;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, demonstrates, tests and measures Buildtrail.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what building and testing need and this machine lacks
    Setup,
    /// Build the eBPF programs, the agent, the collector and the command line
    Build {
        /// Without optimisation (the eBPF programs are always optimised)
        #[arg(long)]
        debug: bool,
    },
    /// Run a real build job under the real agent and show its audit trail
    Demo {
        /// Leave collector and agent running
        #[arg(long)]
        keep: bool,
    },
    /// Run every test that this machine can run
    Test {
        /// Only these: "unit" or the name of an end-to-end suite; may be repeated
        #[arg(long, value_name = "SUITE")]
        only: Vec<suites::Suite>,
    },
    /// Boot other kernels in QEMU and see whether the agent works on them (some 15 s each; not part of `test`)
    VmTest {
        /// 5.10, 6.1, 6.12, 6.18, 7.3 or all; Debian's, fetched as packages when they are needed
        #[arg(long, default_value = "6.1")]
        kernel: vm::Choice,
        /// With programs built without optimisation: sooner built, slower in the guest
        #[arg(long)]
        debug: bool,
        /// Without security modules, and the agent at tier B
        #[arg(long)]
        lsm_off: bool,
        /// With a kernel that interrupts itself wherever it can
        #[arg(long)]
        preempt_full: bool,
    },
    /// Compare every hook's documented prototype with the kernels of `vm-test`
    CheckHooks {
        /// With programs built without optimisation
        #[arg(long)]
        debug: bool,
    },
    /// Measure
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Check formatting and lints
    Lint,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What the agent uses while nothing happens
    Idle {
        /// How long to measure, in seconds
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
    /// How fast a log is verified
    Verify {
        /// Events in the log
        #[arg(long, default_value_t = 1_024_000, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
        events: u64,
    },
    /// How fast fifty people are answered over a month of events while hosts go on sending
    Query {
        /// Events in the index
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
        events: u64,
    },
    /// How many events a second the agent's spool takes and makes durable
    Spool {
        /// How many events to push
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// What the agent adds to single operations: here, and counted in instructions in guests
    Micro {
        /// Baseline and agent in turn, so many times
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
        rounds: u64,
        /// Only on this machine, or only in the guest of this kernel
        #[arg(long)]
        only: Option<vm::Place>,
        /// With programs built without optimisation: what hooks add is the same, what the agent uses is not
        #[arg(long)]
        debug: bool,
    },
    /// How long an event takes from the agent to the collector's acknowledgement, on loopback
    Delivery {
        /// How long to measure, in seconds
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Without the backtrace that the debug form would carry.
            shell::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the task succeeded; an error is a task that could not be done.
fn run(task: &Task) -> Result<bool> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::run(&workspace).map(|()| true),
        Task::Build { debug } => compile::everything(&workspace, *debug).map(|()| true),
        Task::Demo { keep } => suites::demo(&workspace, *keep).map(|()| true),
        Task::Test { only } => suites::run(&workspace, only),
        Task::VmTest { kernel, debug, lsm_off, preempt_full } => {
            let mode = vm::Mode { lsm_off: *lsm_off, preempt_full: *preempt_full, ..vm::Mode::default() };
            vm::run(&workspace, *kernel, *debug, mode)
        }
        Task::CheckHooks { debug } => vm::check_hooks(&workspace, *debug),
        Task::Bench { what } => match what {
            Bench::Idle { seconds } => bench::idle(&workspace, *seconds),
            Bench::Verify { events } => bench_verify::run(&workspace, *events),
            Bench::Query { events } => bench_query::run(&workspace, *events),
            Bench::Spool { events } => bench::way(&workspace, "spool", "--events", *events),
            Bench::Micro { rounds, only, debug } => bench::micro(&workspace, *rounds, *only, *debug),
            Bench::Delivery { seconds } => bench::way(&workspace, "delivery", "--seconds", *seconds),
        },
        Task::Lint => lint::run(&workspace).map(|()| true),
    }
}
