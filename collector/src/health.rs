//! What came in, what was refused, and why: counters, and warnings that cannot flood the log.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::acts::{Refusals, printable};

/// Most warnings per [`WINDOW`]; further refusals are only counted.
const MAX_WARNINGS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Why something of a peer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No TLS, no certificate where one is needed, or one of a foreign authority.
    Handshake,
    /// A certificate that has expired.
    Expired,
    /// A certificate that was revoked.
    Revoked,
    /// A key that is in use on two machines.
    Cloned,
    /// A join token that is unknown, cancelled, expired, used up or for other hosts.
    Token,
    /// A connection on which nothing (useful) comes.
    Stalled,
    /// Too many connections or tails.
    Busy,
    /// The certificate does not allow this call, host id or key.
    Identity,
    /// A message over the size limit.
    Oversized,
    /// A message or batch that is malformed, altered or not signed.
    Garbage,
    /// A batch whose predecessors are missing.
    Gap,
    /// A batch of a second history.
    Fork,
    /// The collector's disk would not take it.
    Disk,
    /// A tail that was read too slowly.
    SlowReader,
}

const REFUSALS: [Refusal; 14] = [
    Refusal::Handshake,
    Refusal::Expired,
    Refusal::Revoked,
    Refusal::Cloned,
    Refusal::Token,
    Refusal::Stalled,
    Refusal::Busy,
    Refusal::Identity,
    Refusal::Oversized,
    Refusal::Garbage,
    Refusal::Gap,
    Refusal::Fork,
    Refusal::Disk,
    Refusal::SlowReader,
];

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// The collector's counters since it started.
#[derive(Debug, Default)]
pub struct Health {
    /// Connections with a valid certificate.
    pub connections: Counter,
    /// Batches stored.
    pub batches: Counter,
    /// Events in them.
    pub events: Counter,
    /// Batches that were known already and acknowledged again.
    pub duplicates: Counter,
    refused: [Counter; REFUSALS.len()],
    warnings: Mutex<Warnings>,
    /// For the log; see [`crate::acts`].
    pub(crate) refusals: Refusals,
}

#[derive(Debug, Default)]
struct Warnings {
    since: Option<Instant>,
    given: u32,
    suppressed: u64,
}

impl Health {
    /// How often something was refused for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize].get()
    }

    /// Counts a refusal and warns about it, at most ten times in ten seconds. `peer` and `detail` may hold what a peer
    /// sent: they are logged escaped and cut.
    pub(crate) fn refuse(&self, why: Refusal, peer: impl fmt::Display, detail: impl fmt::Display) {
        self.refused[why as usize].add(1);
        self.refusals.add(&format!("{why:?}").to_lowercase(), || printable(&peer), || printable(&detail));
        let Some(suppressed) = self.may_warn(Instant::now()) else { return };
        let (peer, detail) = (printable(&peer), printable(&detail));
        tracing::warn!(reason = ?why, peer, detail, suppressed_before = suppressed, "refused");
    }

    /// Whether to warn now, and if so how many warnings were withheld since the last one.
    fn may_warn(&self, now: Instant) -> Option<u64> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            warnings.since = Some(now);
            warnings.given = 0;
        }
        if warnings.given == MAX_WARNINGS {
            warnings.suppressed += 1;
            return None;
        }
        warnings.given += 1;
        Some(std::mem::take(&mut warnings.suppressed))
    }

    pub(crate) fn log_totals(&self) {
        let refused: Vec<String> = REFUSALS
            .iter()
            .filter(|why| self.refused(**why) > 0)
            .map(|why| format!("{why:?}={}", self.refused(*why)))
            .collect();
        tracing::info!(
            connections = self.connections.get(),
            batches = self.batches.get(),
            events = self.events.get(),
            duplicates = self.duplicates.get(),
            refused = refused.join(" "),
            "totals since start"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_counts_but_only_a_few_warn() {
        let health = Health::default();
        for _ in 0..50 {
            health.refuse(Refusal::Fork, "peer", "detail");
        }
        assert_eq!(health.refused(Refusal::Fork), 50);
        assert_eq!(health.refused(Refusal::SlowReader), 0);
        assert_eq!(health.may_warn(Instant::now()), None);
        assert_eq!(health.may_warn(Instant::now() + WINDOW), Some(41));
    }

    #[test]
    fn what_a_peer_sent_is_logged_escaped_and_cut() {
        assert_eq!(printable(&"a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(printable(&"x".repeat(1000)).len(), 300);
    }
}
