//! Synthetic load: the agent's spool and uplink without its sensors, fed with numbered events.
//!
//! In: an agent's settings and how many events at which rate. Out: lines on standard output: how many events are known
//! to be on disk, what was lost. Whoever reads them knows after a kill which events must arrive. Must never say that an
//! event is on disk before the spool says so.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use buildtrail_agent::{
    clock::BootTime,
    config::Config,
    enrol::Credentials,
    run::Delivery,
    spool::{SpoolHandle, SpoolStats},
};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        AuditEvent, ConnectionOpened, Job, Process, ProcessExec, Protocol, SecretAccess, audit_event::Body,
    },
};
use clap::Parser;

const POLL: Duration = Duration::from_millis(1);

/// How to make load.
#[derive(Debug, Clone, Parser)]
pub struct Plan {
    /// The agent's settings
    #[arg(long)]
    pub config: PathBuf,
    /// Number of the first event
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// How many events
    #[arg(long)]
    pub count: u64,
    /// Events per second; 0: as many as go
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Most events that are pushed and neither on disk nor counted as lost; 0: no bound
    #[arg(long, default_value_t = 2000)]
    pub window: u64,
    /// Time of event number 0, in nanoseconds since 1970
    #[arg(long)]
    pub epoch: i64,
    /// Nanoseconds between the times of two events: each has a time of its own
    #[arg(long, default_value_t = 1000)]
    pub spacing: u64,
    /// Seconds by which the wall clock is wrong from an event on, as NUMBER:SECONDS; may be repeated
    #[arg(long, value_parser = parse_step)]
    pub clock: Vec<(u64, i64)>,
    /// End once the collector has everything
    #[arg(long)]
    pub deliver: bool,
}

fn parse_step(text: &str) -> Result<(u64, i64)> {
    let (number, seconds) = text.split_once(':').context("expected NUMBER:SECONDS")?;
    Ok((number.parse()?, seconds.parse()?))
}

impl Plan {
    /// What the wall clock shows when this event happens.
    fn unix_nanos(&self, number: u64) -> i128 {
        let wrong_by = self.clock.iter().rev().find(|(from, _)| *from <= number).map_or(0, |(_, by)| *by);
        let since = i128::from(number) * i128::from(self.spacing);
        i128::from(self.epoch) + since + i128::from(wrong_by) * 1_000_000_000
    }
}

/// An event that can be told from all others: a third program starts, a third connections, a third secrets.
#[must_use]
pub fn event(number: u64, unix_nanos: i128) -> AuditEvent {
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(unix_nanos)),
        boot_time_ns: BootTime::now().0,
        job: Some(Job {
            job_id: "0123456789abcdef0123456789abcdef".into(),
            repository: "acme/synthetic".into(),
            ..Job::default()
        }),
        process: Some(Process {
            pid: 4711,
            // Where the number is kept: events of every kind have it.
            start_boot_time_ns: number + 1,
            executable: "/usr/bin/make".into(),
            ..Process::default()
        }),
        body: Some(body(number)),
        ..AuditEvent::default()
    }
}

fn body(number: u64) -> Body {
    match number % 3 {
        0 => Body::ProcessExec(ProcessExec {
            filename: "/usr/bin/cc".into(),
            argv: ["cc", "-O2", "-Wall", "-c", "src/widget.c", "-o", "build/widget.o"]
                .map(str::to_owned)
                .into(),
            working_directory: "/srv/runner/_work/synthetic".into(),
            ..ProcessExec::default()
        }),
        1 => Body::ConnectionOpened(ConnectionOpened {
            protocol: Protocol::Tcp.into(),
            remote_address: "192.0.2.10".into(),
            remote_port: 443,
            dns_names: vec!["registry.example.test".into()],
            ..ConnectionOpened::default()
        }),
        _ => Body::SecretAccess(SecretAccess {
            secret: "npm token".into(),
            family: "npm".into(),
            path: "/home/build/.npmrc".into(),
            ..SecretAccess::default()
        }),
    }
}

/// The number of a synthetic event.
#[must_use]
pub fn number(event: &AuditEvent) -> Option<u64> {
    let is_synthetic = event.job.as_ref().is_some_and(|job| job.repository == "acme/synthetic");
    event.process.as_ref().filter(|_| is_synthetic)?.start_boot_time_ns.checked_sub(1)
}

/// Makes load until everything planned is on disk, then until it is delivered or this process is ended.
///
/// # Errors
/// The settings, the certificates or the spool cannot be used.
pub async fn run(plan: Plan) -> Result<()> {
    let config = Config::load(&plan.config)?;
    let delivery = Delivery::start(&config, Some(Credentials::load(&config)?))?;
    let spool = delivery.spool().context("no spool")?;
    let mut teller = Teller { spool: spool.clone(), told: SpoolStats::default() };
    tell("ready")?;
    let start = Instant::now();
    let mut pushed = 0;
    while pushed < plan.count {
        let settled = teller.tell_progress()?;
        let due = if plan.rate == 0 { plan.count } else { events_due(start, plan.rate) };
        let bound = if plan.window == 0 { u64::MAX } else { settled + plan.window };
        let until = due.min(bound).min(plan.count);
        if until <= pushed {
            tokio::time::sleep(POLL).await;
        }
        while pushed < until {
            let number = plan.first + pushed;
            spool.push(event(number, plan.unix_nanos(number)));
            pushed += 1;
        }
    }
    loop {
        teller.tell_progress()?;
        let stats = spool.stats();
        let settled = stats.stored_events + stats.lost_events >= plan.count;
        if plan.deliver && settled && stats.delivered_sequence == stats.stored_sequence {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    delivery.stop().await;
    teller.tell_progress()?;
    tell("delivered")
}

fn events_due(start: Instant, rate: u64) -> u64 {
    u64::try_from(start.elapsed().as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX)
}

struct Teller {
    spool: SpoolHandle,
    told: SpoolStats,
}

impl Teller {
    /// Says what is on disk and what was lost, if that is news; how many events that makes.
    fn tell_progress(&mut self) -> Result<u64> {
        let stats = self.spool.stats();
        if stats.stored_events != self.told.stored_events || stats.lost_events != self.told.lost_events {
            tell(&format!(
                "stored {} lost {} given-up {}",
                stats.stored_events, stats.lost_events, stats.given_up_events
            ))?;
            self.told = stats;
        }
        Ok(stats.stored_events + stats.lost_events)
    }
}

fn tell(what: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}
