//! Benchmarks of the agent's way from an event to the collector's acknowledgement.
//!
//! In: synthetic events ([`crate::load`]). Out: figures on standard output, and whether the goals were reached. Must
//! never become a test: figures depend on the machine.

mod micro;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use buildtrail_agent::{
    config::{self, Config},
    enrol::Credentials,
    run::Delivery,
    spool::{Identity, Spool, SpoolHandle},
};
use buildtrail_evidence::{
    batch::Build,
    id::{BootId, HostId},
    key::HostKey,
};
use buildtrail_proto::v1::AuditEvent;
use clap::Subcommand;

use crate::{
    collector::{Site, agent_settings},
    load,
    source::EPOCH,
};

/// Events that may be pushed and not be on disk: the spool's queue takes a few more.
const WINDOW: u64 = 7000;
const GOAL_STORED_PER_SECOND: f64 = 100_000.0;
const RATE: u64 = 5000;
const GOAL_P99: Duration = Duration::from_millis(250);

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Events appended to the spool, signed and synced
    Spool {
        /// Where to put it: the disk that is measured
        #[arg(long)]
        directory: PathBuf,
        /// How many events
        #[arg(long)]
        events: u64,
    },
    /// Single operations without the agent and with it
    Micro {
        /// Where to put what is opened
        #[arg(long)]
        directory: PathBuf,
        /// Baseline and agent in turn, so many times
        #[arg(long)]
        rounds: u64,
    },
    /// From the push of an event to its acknowledgement by a collector on loopback
    Delivery {
        /// Where agent and collector keep their files
        #[arg(long)]
        directory: PathBuf,
        /// For how long
        #[arg(long)]
        seconds: u64,
    },
}

/// Measures; whether the goal was reached.
///
/// # Errors
/// When something could not be measured.
pub async fn run(what: &What) -> Result<bool> {
    match what {
        What::Spool { directory, events } => spool(directory, *events),
        What::Micro { directory, rounds } => micro::native(directory, *rounds),
        What::Delivery { directory, seconds } => delivery(directory, *seconds).await,
    }
}

fn spool(directory: &Path, count: u64) -> Result<bool> {
    let place = tempfile::tempdir_in(directory).context("cannot make a directory")?;
    let identity = Identity {
        host_id: HostId::parse("0190c0de-0000-7000-8000-000000000001")?,
        boot_id: BootId::parse("8a7a8a4c-52f4-4a3c-8f1b-0d2f6a1f0b11")?,
        key: HostKey::from_seed(&[7; 32]),
        build: Build::default(),
    };
    // Room for all of it: a full spool is another question.
    let settings = config::Spool { max_bytes: 1 << 40, ..config::Spool::default() };
    let spool = Spool::start(place.path(), &settings, identity)?;
    let handle = spool.handle();
    let patterns: Vec<AuditEvent> = (0..3).map(|number| load::event(number, EPOCH.into())).collect();

    let start = Instant::now();
    for (pushed, pattern) in (0..count).zip(patterns.iter().cycle()) {
        while pushed - handle.stats().stored_events >= WINDOW {
            std::thread::sleep(Duration::from_micros(50));
        }
        handle.push(pattern.clone());
    }
    while handle.stats().stored_events < count {
        std::thread::sleep(Duration::from_micros(50));
    }
    let elapsed = start.elapsed().as_secs_f64();
    let stats = spool.shutdown(Duration::from_secs(10));
    ensure!(stats.lost_events == 0, "{} events were lost", stats.lost_events);

    let (per_second, bytes) = (per(count, elapsed), per(stats.bytes, 1.0));
    let reached = per_second >= GOAL_STORED_PER_SECOND;
    say(&format!("    durable    {per_second:>10.0} events/s ({})", verdict(reached, "≥ 100,000")));
    say(&format!("    on disk    {:>10.0} bytes/event", bytes / per(count, 1.0)));
    say(&format!("    written    {:>10.1} MB/s", bytes / elapsed / 1e6));
    Ok(reached)
}

async fn delivery(directory: &Path, seconds: u64) -> Result<bool> {
    let place = tempfile::tempdir_in(directory).context("cannot make a directory")?;
    let site = Site::prepare(place.path())?;
    let collector = site.start("127.0.0.1:0", false)?;
    let settings = agent_settings(&site, &collector.address, Path::new("/nonexistent")).write()?;
    let delivery = start_delivery(&Config::load(&settings)?)?;
    let spool = delivery.spool().context("no spool")?;

    let mut latencies = Latencies::default();
    // Not measured: connecting.
    latencies.push(&spool, 1);
    while !latencies.look(&spool) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    latencies.found.clear();
    let (start, count) = (Instant::now(), RATE * seconds);
    let mut pushed = 0;
    while !(pushed == count && latencies.look(&spool)) {
        let due = u64::try_from(start.elapsed().as_micros())? * RATE / 1_000_000;
        let next = due.min(count) - pushed;
        latencies.push(&spool, next);
        pushed += next;
        latencies.look(&spool);
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let stats = spool.stats();
    delivery.stop().await;
    collector.stop()?;
    ensure!(stats.lost_events == 0, "{} events were lost", stats.lost_events);

    let p99 = latencies.percentile(99);
    let reached = p99 < GOAL_P99;
    say(&format!("    {} events at {RATE} a second", latencies.found.len()));
    say(&format!("    acknowledged p50 {:>8.1} ms", milliseconds(latencies.percentile(50))));
    say(&format!("    acknowledged p99 {:>8.1} ms ({})", milliseconds(p99), verdict(reached, "< 250 ms")));
    say(&format!("    slowest          {:>8.1} ms", milliseconds(latencies.percentile(100))));
    Ok(reached)
}

fn start_delivery(config: &Config) -> Result<Delivery> {
    Ok(Delivery::start(config, Some(Credentials::load(config)?))?)
}

/// When events were pushed that are not acknowledged, and how long the others took.
#[derive(Default)]
struct Latencies {
    pushed: u64,
    waiting: VecDeque<(u64, Instant)>,
    found: Vec<Duration>,
}

impl Latencies {
    fn push(&mut self, spool: &SpoolHandle, count: u64) {
        for _ in 0..count {
            spool.push(load::event(self.pushed, EPOCH.into()));
            self.pushed += 1;
            self.waiting.push_back((self.pushed, Instant::now()));
        }
    }

    /// Notes what was acknowledged; whether that is everything.
    fn look(&mut self, spool: &SpoolHandle) -> bool {
        let delivered = spool.stats().delivered_sequence;
        while let Some((_, pushed)) = self.waiting.pop_front_if(|(sequence, _)| *sequence <= delivered) {
            self.found.push(pushed.elapsed());
        }
        self.waiting.is_empty()
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.found.clone();
        sorted.sort_unstable();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

fn verdict(reached: bool, goal: &str) -> String {
    if reached { format!("within the goal of {goal}") } else { format!("MISSES the goal of {goal}") }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn say(line: &str) {
    println!("{line}");
}
