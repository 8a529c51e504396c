//! A process that makes load ([`crate::load`]), and the account of what of it must have arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use buildtrail_proto::v1::{AuditEvent, Loss, audit_event::Body};

use crate::{
    collector::{Site, agent_settings},
    load,
    process::Running,
};

/// 2026-11-22 09:00:00 UTC, the time of event 0.
pub const EPOCH: i64 = 1_795_338_000_000_000_000;
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// What a source has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Events known to be on disk, its own loss reports included.
    pub stored: u64,
    /// Events refused, and counted.
    pub lost: u64,
    /// Events on disk that were given up before they were delivered.
    pub given_up: u64,
    /// It ended because the collector has everything.
    pub delivered: bool,
}

/// A source of numbered events, running.
#[derive(Debug)]
pub struct Source {
    running: Running,
}

impl Source {
    /// Starts a source on the site's host that sends to `address`; `spool` are lines of the agent's `[spool]`.
    ///
    /// # Errors
    /// When it does not get so far as to push events.
    pub fn start(site: &Site, address: &str, spool: &str, arguments: &[&str]) -> Result<Self> {
        let settings = agent_settings(site, address, &PathBuf::from("/nonexistent"));
        let config = settings.with(&format!("[spool]\n{spool}")).write()?;
        let mut running = site
            .launch("load", "load")?
            .arg("--config")
            .arg(config)
            .args(["--epoch", &EPOCH.to_string()])
            .args(arguments)
            .spawn()?;
        let output = running.stdout().to_owned();
        running.wait_until("its spool", READY_DEADLINE, || {
            fs::read_to_string(&output).is_ok_and(|text| text.contains("ready\n"))
        })?;
        Ok(Self { running })
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn progress(&self) -> Result<Progress> {
        progress(&self.running)
    }

    /// Waits until what it says is as wanted.
    ///
    /// # Errors
    /// When it ends before, or `deadline` passes.
    pub fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(Progress) -> bool,
    ) -> Result<Progress> {
        let output = self.running.stdout().to_owned();
        self.running.wait_until(what, deadline, || parse(&output).is_ok_and(&wanted))?;
        self.progress()
    }

    /// Ends it with SIGKILL; what it had said.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(self) -> Result<Progress> {
        let output = self.running.stdout().to_owned();
        self.running.kill()?;
        parse(&output)
    }

    /// Waits until the collector has everything and it ends.
    ///
    /// # Errors
    /// When that takes longer than `deadline`.
    pub fn wait_until_delivered(mut self, deadline: Duration) -> Result<Progress> {
        let status = self.running.wait(deadline)?;
        let said = self.progress()?;
        ensure!(status.success() && said.delivered, "it ended with {status}\n{}", self.running.tail(20));
        Ok(said)
    }
}

fn progress(running: &Running) -> Result<Progress> {
    parse(running.stdout())
}

/// Whole lines only: a killed process may leave a part of one.
fn parse(output: &std::path::Path) -> Result<Progress> {
    let text = fs::read_to_string(output).context("cannot read what the source said")?;
    let mut progress = Progress::default();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["stored", stored, "lost", lost, "given-up", given_up] => {
                let delivered = progress.delivered;
                progress = Progress {
                    stored: stored.parse()?,
                    lost: lost.parse()?,
                    given_up: given_up.parse()?,
                    delivered,
                };
            }
            ["delivered"] => progress.delivered = true,
            _ => {}
        }
    }
    Ok(progress)
}

/// Numbers of the synthetic events among `events`, each once.
///
/// # Errors
/// When one is there twice, or a sequence number is.
pub fn numbers(events: &[AuditEvent]) -> Result<BTreeSet<u64>> {
    let mut sequences = BTreeSet::new();
    for event in events {
        let place = (&event.host_id, &event.boot_id, event.sequence);
        ensure!(sequences.insert(place), "{place:?} is stored twice");
    }
    let mut numbers = BTreeSet::new();
    for number in events.iter().filter_map(load::number) {
        ensure!(numbers.insert(number), "event {number} is stored twice");
    }
    Ok(numbers)
}

/// Whether the events' own numbers are 1, 2, 3, … in the order of the sources' numbers, with holes only where losses say
/// so; returns the losses.
///
/// # Errors
/// When something is missing that nobody reported, or reported and not missing.
pub fn account(events: &[AuditEvent], pushed: u64) -> Result<Vec<Loss>> {
    let present: BTreeMap<u64, &AuditEvent> = events.iter().map(|event| (event.sequence, event)).collect();
    let mut ordered = present.values().filter_map(|event| load::number(event));
    ensure!(ordered.by_ref().is_sorted(), "the order is not the one in which they happened");
    let losses: Vec<Loss> = events
        .iter()
        .filter_map(|event| if let Some(Body::Loss(loss)) = &event.body { Some(loss.clone()) } else { None })
        .collect();
    let last = present.keys().next_back().copied().unwrap_or_default();
    let missing: Vec<u64> = (1..=last).filter(|sequence| !present.contains_key(sequence)).collect();
    let ranges: Vec<&Loss> = losses.iter().filter(|loss| loss.first_sequence > 0).collect();
    let reported: u64 = ranges.iter().map(|loss| loss.count).sum();
    ensure!(
        missing.len() as u64 == reported,
        "{} numbered events are missing, {reported} are reported as given up",
        missing.len()
    );
    for sequence in &missing {
        let is_covered =
            ranges.iter().any(|loss| (loss.first_sequence..=loss.last_sequence).contains(sequence));
        ensure!(is_covered, "event {sequence} is missing and in no report");
    }
    let refused: u64 = losses.iter().filter(|loss| loss.first_sequence == 0).map(|loss| loss.count).sum();
    let arrived = numbers(events)?.len() as u64;
    ensure!(
        arrived + reported + refused == pushed,
        "{pushed} pushed, {arrived} arrived, {reported} given up, {refused} refused"
    );
    Ok(losses)
}
