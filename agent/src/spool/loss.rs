//! Counts what the spool could not keep, and turns the counts into events.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use buildtrail_proto::{
    timestamp_from_unix_nanos,
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
    /// The disk refused until the agent had to end.
    DiskRefused,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue full",
            Self::SpoolFull => "spool full",
            Self::TooLarge => "event too large",
            Self::Closed => "agent stopping",
            Self::DiskRefused => "disk refused",
        }
    }
}

/// Losses since start, and those not reported yet.
#[derive(Debug, Default)]
pub(super) struct LossLedger {
    total: AtomicU64,
    unreported: Mutex<BTreeMap<(Reason, &'static str), u64>>,
}

impl LossLedger {
    pub(super) fn count(&self, reason: Reason, kind: &'static str, events: u64) {
        self.total.fetch_add(events, Ordering::Relaxed);
        let mut unreported = self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        *unreported.entry((reason, kind)).or_default() += events;
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn has_unreported(&self) -> bool {
        !self.unreported.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// One `loss` event for each reason and kind; from then on they count as reported.
    pub(super) fn report(&self) -> Vec<AuditEvent> {
        let taken = std::mem::take(&mut *self.unreported.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_iter().map(|((reason, kind), count)| loss_event(reason, kind, count)).collect()
    }
}

fn loss_event(reason: Reason, kind: &str, count: u64) -> AuditEvent {
    let now = BootTime::now();
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(now.to_unix_nanos())),
        boot_time_ns: now.0,
        body: Some(Body::Loss(Loss {
            stage: STAGE.into(),
            reason: format!("{}: {kind}", reason.as_str()),
            count,
            ..Loss::default()
        })),
        ..Default::default()
    }
}
