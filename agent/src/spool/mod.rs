//! The spool: a bounded, crash-safe queue of signed batches between the sensor and the uplink.
//!
//! In: events, pushed without ever waiting. Out: signed, chained batches on disk, read by the uplink through an
//! [`Outbox`] and deleted once the collector has them.
//! Must never block the sensor, lose anything without counting it, or drop a batch that was sealed.
//!
//! What is on disk, below the state directory in `spool/<key>/` (one folder per host key: chains do not mix):
//! `records/` holds the batches (`buildtrail_evidence::records`), `acknowledged` the first record that the collector
//! does not have yet. Chain head, event numbers and loss totals are read back from the last record, which is
//! therefore always kept; a lost `acknowledged` only means that batches are sent twice.
//!
//! The spool takes at most `max_bytes`, and less where it would leave others less than `min_free_bytes` of the file
//! system. When that bound is near, batches that wait are rewritten without their oldest events: connections, lookups
//! and program starts first, everything but loss reports when nothing of those is left. Header, signature and the
//! hashes of what went stay, so the chain does. Each such act is followed by a signed `loss` event that names boot, range
//! of numbers and times, kinds and counts. New events are refused only when nothing is left to give up for them, and
//! that is counted and reported too. What waits longer than `max_age_hours` is given up the same way.
//! A batch that was handed to the uplink is never given up: it may have arrived.
//! When the disk refuses, what was sealed waits in memory and is tried again every second; meanwhile the queue fills
//! and then counts.

mod given_up;
mod journal;
mod loss;
mod outbox;
mod position;
mod reserve;
mod room;
mod small_file;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use buildtrail_evidence::{
    batch::Build,
    id::{BootId, HostId},
    key::HostKey,
    records::RecordsError,
};
use buildtrail_proto::v1::AuditEvent;
use tokio::sync::watch;

pub use self::outbox::{Outbox, OutboxError, Outgoing};
use self::{
    journal::Journal,
    loss::{LossLedger, Reason},
    worker::Worker,
};
use crate::config;

/// Events that may wait in memory for the spool's thread.
const QUEUE_EVENTS: usize = 8192;

/// Who signs, and when.
#[derive(Debug)]
pub struct Identity {
    /// The id in the host's certificate.
    pub host_id: HostId,
    /// The kernel's random boot id.
    pub boot_id: BootId,
    /// The certificate's key.
    pub key: HostKey,
    /// What the batch headers say about this program and its settings.
    pub build: Build,
}

/// The spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The record files cannot be used.
    #[error("the spool cannot be opened: {0}")]
    Records(#[from] RecordsError),
    /// The system refused a thread.
    #[error("the spool's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the spool has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// Events on disk (sent or not), loss reports included.
    pub stored_events: u64,
    /// Events that were pushed and could not be kept.
    pub lost_events: u64,
    /// Events that were on disk and had to be given up before the collector had them.
    pub given_up_events: u64,
    /// Number of the last event of this boot that is on disk.
    pub stored_sequence: u64,
    /// Number of the last event of this boot that the collector has on its disk.
    pub delivered_sequence: u64,
    /// Bytes in the spool's files.
    pub bytes: u64,
}

enum Message {
    Event(Box<AuditEvent>),
    /// Look at what changed: an acknowledgement.
    Wake,
}

/// Batches on their way to the uplink, and the records they come from.
#[derive(Default)]
struct HandingOut {
    /// Records before this one were handed to the uplink since start.
    end: u64,
    /// Grows whenever records are replaced: whoever reads must open them again.
    generation: u64,
}

/// What the spool's thread, the handles and the outbox share.
struct Shared {
    /// `None` once the spool is closed: the thread then sees everything that was pushed, and nothing more.
    queue: RwLock<Option<SyncSender<Message>>>,
    boot_id: BootId,
    key: HostKey,
    loss: LossLedger,
    handing_out: Mutex<HandingOut>,
    /// Bytes that may be handed out and not acknowledged.
    most_on_the_way: u64,
    given_up_events: AtomicU64,
    stored_sequence: AtomicU64,
    delivered_sequence: AtomicU64,
    lost_in_kernel: AtomicU64,
    stored_events: AtomicU64,
    bytes: AtomicU64,
    /// First record the collector does not have.
    acknowledged: AtomicU64,
    /// Until when closing may go on trying.
    deadline: Mutex<Option<Instant>>,
}

impl Shared {
    fn send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        match self.queue.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(queue) => queue.try_send(message),
            None => Err(TrySendError::Disconnected(message)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way into the spool. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct SpoolHandle(Arc<Shared>);

impl SpoolHandle {
    /// Hands over an event; host, boot and sequence are filled in later. Never waits: what does not fit into the
    /// queue is counted by kind and reported as lost.
    pub fn push(&self, event: AuditEvent) {
        let (kind, time) = (event.kind(), event.time);
        match self.0.send(Message::Event(Box::new(event))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.0.loss.count(Reason::QueueFull, kind, time),
            Err(TrySendError::Disconnected(_)) => self.0.loss.count(Reason::Closed, kind, time),
        }
    }

    /// Adds to the number of events lost in the kernel that every batch header states. Whoever calls this also pushes
    /// the `loss` event that says where.
    pub fn count_lost_in_kernel(&self, events: u64) {
        self.0.lost_in_kernel.fetch_add(events, Ordering::Relaxed);
    }

    /// What was stored and lost since start.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        SpoolStats {
            stored_events: self.0.stored_events.load(Ordering::Relaxed),
            lost_events: self.0.loss.total(),
            given_up_events: self.0.given_up_events.load(Ordering::Relaxed),
            stored_sequence: self.0.stored_sequence.load(Ordering::Acquire),
            delivered_sequence: self.0.delivered_sequence.load(Ordering::Acquire),
            bytes: self.0.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A running spool. Ended by [`Spool::shutdown`] alone.
pub struct Spool {
    handle: SpoolHandle,
    directory: PathBuf,
    durable: watch::Receiver<u64>,
    thread: JoinHandle<()>,
}

impl Spool {
    /// Opens the spool below `state_directory`, repairs what a crash left, and starts its thread.
    ///
    /// # Errors
    /// The directory cannot be made or read, another agent uses it, or no thread can be started.
    pub fn start(
        state_directory: &Path,
        settings: &config::Spool,
        identity: Identity,
    ) -> Result<Self, SpoolError> {
        let key = identity.key.public().to_string();
        let directory = state_directory.join("spool").join(&key[..16]);
        let (journal, recovered) = Journal::open(&directory, settings.segment_bytes)?;
        let acknowledged = position::read(&directory).min(journal.end());
        let (queue, receiver) = sync_channel(QUEUE_EVENTS);
        let shared = Arc::new(Shared {
            queue: RwLock::new(Some(queue)),
            boot_id: identity.boot_id.clone(),
            key: identity.key.clone(),
            loss: LossLedger::default(),
            handing_out: Mutex::default(),
            most_on_the_way: settings.max_bytes / 8,
            given_up_events: AtomicU64::new(0),
            stored_sequence: AtomicU64::new(recovered.sequence_in(&identity.boot_id)),
            delivered_sequence: AtomicU64::new(0),
            lost_in_kernel: AtomicU64::new(0),
            stored_events: AtomicU64::new(0),
            bytes: AtomicU64::new(journal.bytes()),
            acknowledged: AtomicU64::new(acknowledged),
            deadline: Mutex::new(None),
        });
        let (publish, durable) = watch::channel(journal.end());
        let worker = Worker::new(
            receiver,
            shared.clone(),
            journal,
            publish,
            settings,
            identity,
            &recovered,
            directory.clone(),
        );
        let thread = thread::Builder::new().name("spool".into()).spawn(move || worker.run())?;
        Ok(Self { handle: SpoolHandle(shared), directory, durable, thread })
    }

    /// A way to push events.
    #[must_use]
    pub fn handle(&self) -> SpoolHandle {
        self.handle.clone()
    }

    /// The uplink's side. One at a time: acknowledgements of two would overtake each other.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        Outbox::new(&self.directory, self.durable.clone(), self.handle.0.clone())
    }

    /// Takes no more events, writes and syncs everything pushed so far, and ends. Blocks; a disk that refuses is tried
    /// again for `patience`, and what could not be written by then is counted as lost.
    #[must_use]
    pub fn shutdown(self, patience: Duration) -> SpoolStats {
        let shared = &self.handle.0;
        *shared.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + patience);
        shared.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the spool's thread ended unexpectedly; what it had not written is lost");
        }
        self.handle.stats()
    }
}

#[cfg(test)]
mod tests;
