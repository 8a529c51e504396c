//! The collector's own acts and what it notices: entries of its log like the hosts' batches.
//!
//! In: acts from all parts of the collector. Out: [`CollectorEntry`] records, in the order of their coming, and on disk as
//! soon as batches would be. Questions and refusals are put together ([`Questions`], [`notes`]), so that nobody can flood
//! the log. Must never hold a token, a key, or more of a peer's text than its bounds.

mod failures;
mod questions;
mod refusals;

use std::{sync::Arc, time::Duration};

use buildtrail_evidence::log::MAX_LEAF_BYTES;
use buildtrail_proto::{
    now,
    v1::{CollectorEntry, collector_entry::Act},
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::{failures::Failures, questions::Questions, refusals::Refusals};
use crate::{
    health::Health,
    ledger::{Answer, Ledger, LedgerError},
};

/// How often what was put together is written.
const TOGETHER: Duration = Duration::from_mins(1);

/// Longest text of a peer in an entry, in characters.
pub(crate) const MAX_TEXT: usize = 300;

/// Where acts are handed in. Clones share one queue.
#[derive(Debug, Clone)]
pub(crate) struct Acts {
    sender: mpsc::UnboundedSender<Noted>,
}

/// The other end of [`Acts`].
#[derive(Debug)]
pub(crate) struct Desk {
    receiver: mpsc::UnboundedReceiver<Noted>,
}

#[derive(Debug)]
struct Noted {
    entry: CollectorEntry,
    answer: oneshot::Sender<Answer>,
    last: bool,
}

impl Acts {
    pub(crate) fn new() -> (Self, Desk) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, Desk { receiver })
    }

    /// Notes an act and does not wait for the disk. Callers see to it that a peer cannot cause acts without bound.
    pub(crate) fn record(&self, act: Act) {
        drop(self.note(act, false));
    }

    /// Notes an act and waits until it is on disk.
    ///
    /// # Errors
    /// The disk refuses, or the collector is stopping.
    pub(crate) async fn record_durably(&self, act: Act) -> Result<(), LedgerError> {
        self.note(act, false).await.unwrap_or(Err(LedgerError::Stopping)).map(|_| ())
    }

    /// Notes the last act; what is handed in afterwards is lost. Waits until it is on disk.
    pub(crate) async fn close(&self, act: Act) -> Result<(), LedgerError> {
        self.note(act, true).await.unwrap_or(Err(LedgerError::Stopping)).map(|_| ())
    }

    fn note(&self, act: Act, last: bool) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        // When the desk is gone the sender of the answer is dropped, which the receiver sees.
        let _ = self.sender.send(Noted { entry: entry(act), answer, last });
        receiver
    }
}

/// The entry for an act that happens now. An act too long for a leaf, which its makers' bounds exclude, keeps its kind
/// and the host and loses the rest.
pub(crate) fn entry(act: Act) -> CollectorEntry {
    let entry = CollectorEntry { time: Some(now()), act: Some(act) };
    if entry.encoded_len() < MAX_LEAF_BYTES {
        return entry;
    }
    tracing::error!(kind = entry.kind(), bytes = entry.encoded_len(), "an entry of the log was too long");
    CollectorEntry { act: None, ..entry }
}

/// Hands acts on to the log until the last one.
pub(crate) async fn clerk(mut desk: Desk, ledger: Ledger) {
    while let Some(Noted { entry, answer, last }) = desk.receiver.recv().await {
        ledger.submit_act(entry, answer, last).await;
        if last {
            return;
        }
    }
}

/// Writes what was put together, every minute and at the stop.
pub(crate) async fn notes(
    acts: Acts,
    questions: Arc<Questions>,
    failures: Arc<Failures>,
    health: Arc<Health>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let stop = tokio::select! {
            () = tokio::time::sleep(TOGETHER) => false,
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        questions.flush();
        failures.flush();
        for refused in health.refusals.take() {
            acts.record(Act::PeersRefused(refused));
        }
        if stop {
            return;
        }
    }
}

/// Control characters escaped, at most [`MAX_TEXT`] characters.
pub(crate) fn printable(text: &impl std::fmt::Display) -> String {
    text.to_string().chars().take(MAX_TEXT).flat_map(char::escape_debug).collect()
}
