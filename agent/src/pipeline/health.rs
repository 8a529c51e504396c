//! The agent about itself: heartbeats, and whatever was lost.

use std::collections::{HashMap, HashSet};

use buildtrail_agent_abi::Counters;
use buildtrail_proto::v1;
use tracing::{info, warn};
use v1::audit_event::Body;

use super::{Pipeline, ReadCounters};
use crate::{clock::BootTime, process, sensor::sequence::Gap};

/// Nanoseconds between heartbeats.
const HEARTBEAT_INTERVAL: u64 = 60_000_000_000;
/// Nanoseconds between looks at the kernel's counters.
const LOSS_INTERVAL: u64 = 5_000_000_000;

/// Places of lost records kept for one loss event of a hook.
const MAX_RANGES: usize = 256;

/// Counters, and what of them has been reported.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Events handed to the output since start.
    pub(super) captured: u64,
    lost_in_kernel: u64,
    lost_in_agent: u64,
    reported: HashMap<&'static str, Counters>,
    pending: HashMap<&'static str, u64>,
    gaps: HashMap<&'static str, Vec<Gap>>,
    /// Hooks whose losses wait for their places.
    postponed: HashSet<&'static str>,
    next_heartbeat: BootTime,
    next_look: BootTime,
}

impl Health {
    /// Something went missing in the agent itself.
    pub(super) fn count_lost_in_agent(&mut self, stage: &'static str, count: u64) {
        if count > 0 {
            self.lost_in_agent += count;
            *self.pending.entry(stage).or_default() += count;
        }
    }

    /// Whether the losses of a hook wait for the next look. They do so once.
    fn postpones(&mut self, hook: &'static str, now: Counters) -> bool {
        let before = self.reported.get(hook).copied().unwrap_or_default();
        let new = lost(now) - lost(before);
        let places =
            self.gaps.get(hook).map_or(0, |gaps| gaps.iter().map(|gap| gap.last - gap.first + 1).sum());
        if new > places && self.postponed.insert(hook) {
            return true;
        }
        self.postponed.remove(hook);
        false
    }
}

impl Pipeline {
    pub(super) fn report_health(&mut self, counters: ReadCounters<'_>, now: BootTime) {
        if now >= self.health.next_look {
            self.health.next_look = BootTime(now.0 + LOSS_INTERVAL);
            self.report_losses(counters, false);
        }
        if now >= self.health.next_heartbeat {
            self.health.next_heartbeat = BootTime(now.0 + HEARTBEAT_INTERVAL);
            self.emit_heartbeat();
        }
    }

    /// Keeps the places of records that never came until their hook's losses are reported.
    pub(super) fn report_gaps(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            let known = self.health.gaps.entry(gap.hook).or_default();
            if known.len() < MAX_RANGES {
                known.push(gap.clone());
            }
        }
    }

    /// One loss event for each hook and reason that lost something since the last look. Where a loss was is known a little
    /// later than that there was one: unless this is the last look, what has no place yet waits for the next.
    pub(super) fn report_losses(&mut self, counters: ReadCounters<'_>, at_the_end: bool) {
        match counters() {
            Ok(counters) => {
                for (hook, now) in counters {
                    if !at_the_end && self.health.postpones(hook.name(), now) {
                        continue;
                    }
                    let before = self.health.reported.insert(hook.name(), now).unwrap_or_default();
                    let lost = [
                        ("ring buffer full", now.lost_ring_full - before.lost_ring_full),
                        ("no free slot", now.lost_no_slot - before.lost_no_slot),
                        ("content unreadable", now.lost_unreadable - before.lost_unreadable),
                    ];
                    for (reason, count) in lost {
                        self.report_kernel_loss(hook.name(), reason, count);
                    }
                }
            }
            Err(error) => warn!(%error, "the kernel's loss counters cannot be read"),
        }
        let unwritten = self.output.take_unreported_loss();
        self.health.count_lost_in_agent("output", unwritten);
        for (stage, count) in std::mem::take(&mut self.health.pending) {
            self.emit_loss(stage, "not taken", count);
        }
    }

    /// Says in the agent's log what each hook had done when its losses were last reported.
    pub(super) fn log_counters(&self) {
        for (hook, counts) in self.health.reported.iter().filter(|(_, counts)| counts.happened > 0) {
            let lost = lost(*counts);
            info!(hook, happened = counts.happened, emitted = counts.emitted, lost, "seen by a hook");
        }
    }

    fn report_kernel_loss(&mut self, hook: &'static str, reason: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        self.health.lost_in_kernel += count;
        self.output.count_lost_in_kernel(count);
        self.emit_loss(hook, reason, count);
    }

    fn emit_loss(&mut self, stage: &str, reason: &str, count: u64) {
        warn!(stage, reason, count, "events were lost");
        let gaps = self.health.gaps.remove(stage).unwrap_or_default();
        self.emit_about_host(Body::Loss(v1::Loss {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            count,
            ranges: gaps.iter().map(range).collect(),
            ..v1::Loss::default()
        }));
    }

    pub(super) fn emit_heartbeat(&mut self) {
        let (live, ended) = self.processes.sizes();
        let body = v1::Heartbeat {
            events_captured: self.health.captured,
            events_lost: self.health.lost_in_kernel + self.health.lost_in_agent + self.output.reported_loss(),
            spool_bytes: self.output.spool_bytes(),
            running_jobs: u32::try_from(self.jobs.running()).unwrap_or(u32::MAX),
            processes_known: live as u64,
            processes_ended: ended as u64,
            jobs_with_leftovers: u32::try_from(self.jobs.over()).unwrap_or(u32::MAX),
            files_remembered: self.heirlooms.remembered() as u64,
            resident_bytes: process::look::resident_bytes(),
        };
        self.emit_about_host(Body::Heartbeat(body));
    }
}

fn lost(counts: Counters) -> u64 {
    counts.lost_ring_full + counts.lost_no_slot + counts.lost_unreadable
}

fn range(gap: &Gap) -> v1::LostRange {
    v1::LostRange {
        cpu: gap.cpu,
        first: gap.first,
        last: gap.last,
        after_boot_time_ns: gap.after.0,
        before_boot_time_ns: gap.before.0,
    }
}
