//! Counts what the spool could not keep, and turns the counts into events.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use buildtrail_proto::{
    Timestamp, timestamp_from_unix_nanos, unix_nanos,
    v1::{AuditEvent, Loss, audit_event::Body},
};

use crate::clock::BootTime;

/// `Loss.stage` of everything lost here.
const STAGE: &str = "spool";

/// Why an event was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// More events came than the spool's thread could take.
    QueueFull,
    /// The spool has reached its bound on disk.
    SpoolFull,
    /// The event is larger than one may be.
    TooLarge,
    /// It came after the spool was closed.
    Closed,
    /// It waited longer than an event may.
    TooOld,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue full",
            Self::SpoolFull => "spool full",
            Self::TooLarge => "event too large",
            Self::Closed => "agent stopping",
            Self::TooOld => "older than spool.max_age_hours",
        }
    }
}

/// What was lost for one reason: how many of which kind, and when.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tally {
    kinds: BTreeMap<String, u64>,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    boot_id: String,
    first_sequence: u64,
    last_sequence: u64,
}

impl Tally {
    pub(super) fn add(&mut self, kind: &str, time: Option<Timestamp>) {
        match self.kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.kinds.insert(kind.to_owned(), 1);
            }
        }
        let Some(time) = time else { return };
        if self.first_time.is_none_or(|first| unix_nanos(&time) < unix_nanos(&first)) {
            self.first_time = Some(time);
        }
        if self.last_time.is_none_or(|last| unix_nanos(&time) > unix_nanos(&last)) {
            self.last_time = Some(time);
        }
    }

    /// Adds an event that has its number; all of one tally are of one boot and come in order.
    pub(super) fn add_numbered(&mut self, event: &AuditEvent) {
        self.add(event.kind(), event.time);
        if self.first_sequence == 0 {
            self.boot_id.clone_from(&event.boot_id);
            self.first_sequence = event.sequence;
        }
        self.last_sequence = event.sequence;
    }

    /// Empty as long as no numbered event was added.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn total(&self) -> u64 {
        self.kinds.values().sum()
    }

    pub(super) fn into_event(self, reason: Reason) -> AuditEvent {
        let now = BootTime::now();
        let loss = Loss {
            stage: STAGE.into(),
            reason: reason.as_str().into(),
            count: self.total(),
            kinds: self.kinds,
            first_time: self.first_time,
            last_time: self.last_time,
            boot_id: self.boot_id,
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
            ..Loss::default()
        };
        AuditEvent {
            time: Some(timestamp_from_unix_nanos(now.to_unix_nanos())),
            boot_time_ns: now.0,
            body: Some(Body::Loss(loss)),
            ..Default::default()
        }
    }
}

/// Events that were refused: all since start, and those not reported yet.
#[derive(Debug, Default)]
pub(super) struct LossLedger {
    total: AtomicU64,
    unreported: Mutex<BTreeMap<Reason, Tally>>,
}

impl LossLedger {
    pub(super) fn count(&self, reason: Reason, kind: &str, time: Option<Timestamp>) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.entry(reason).or_default().add(kind, time);
    }

    /// Counts events of which nothing can be told any more, nor reported.
    pub(super) fn count_unreported(&self, events: u64) {
        self.total.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn has_unreported(&self) -> bool {
        !self.unreported.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// One `loss` event for each reason; from then on they count as reported.
    pub(super) fn report(&self) -> Vec<AuditEvent> {
        let taken = std::mem::take(&mut *self.unreported.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().map(|(reason, tally)| tally.into_event(reason)).collect()
    }
}
