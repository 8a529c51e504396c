//! The spool's thread: groups events into batches, seals them, writes and syncs groups of batches, deletes what was
//! acknowledged.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use buildtrail_evidence::{
    batch::{LossTotals, MAX_EVENT_BYTES, Sealer},
    id::BootId,
    records::RecordsError,
};
use buildtrail_proto::{Timestamp, v1::AuditEvent};
use prost::Message as _;
use tokio::sync::watch;

use super::{
    Identity, Message, Shared, given_up,
    journal::{Journal, Recovered},
    loss::Reason,
    position,
    reserve::Reserve,
    room::Bounds,
};
use crate::config;

/// How often losses are reported while the spool is full.
pub(super) const LOSS_REPORT_WHEN_FULL: Duration = Duration::from_secs(30);
/// A batch is sealed when its events have this many bytes, even if more events would be allowed: at 64 kbit/s it then
/// still arrives well within the time in which the uplink wants an acknowledgement.
const MAX_BATCH_BYTES: u64 = 256 * 1024;
/// In seconds since the epoch.
const YEAR_2200: i64 = 7_258_118_400;
/// Tags, lengths and the sequence number that sealing adds to an event, at most.
const EVENT_OVERHEAD: u64 = 32;
/// Most batches that are written with one sync.
const MAX_GROUP: usize = 8;
/// Room that a report of every reason and kind needs, at most.
const MAX_LOSS_REPORT_BYTES: u64 = 16 * 1024;
/// Pause after the disk refused …
const RETRY: Duration = Duration::from_secs(1);
/// … and while the agent ends.
const FINAL_RETRY: Duration = Duration::from_millis(100);
/// How often the acknowledged position is written while acknowledgements come in.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// … or after this many acknowledged batches: far less than a collector remembers to tell duplicates.
const POSITION_BATCHES: u64 = 64;

pub(super) struct Worker {
    receiver: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    publish: watch::Sender<u64>,
    sealer: Sealer,
    boot_id: BootId,
    pub(super) directory: PathBuf,
    pub(super) bounds: Bounds,
    pub(super) reserve: Reserve,
    batch_events: usize,
    batch_interval: Duration,
    /// Identity bytes that sealing adds to each event.
    event_overhead: u64,
    /// Losses of this boot before this start.
    lost_before: LossTotals,

    pending: Vec<AuditEvent>,
    pub(super) pending_bytes: u64,
    oldest: Option<Instant>,
    loss_reported: Instant,
    /// Since when the disk refuses, and when it is tried again.
    retry_at: Option<Instant>,
    position: u64,
    position_written: Instant,
    bookkeeping_failed: bool,
}

impl Worker {
    #[expect(clippy::too_many_arguments, reason = "called once, by Spool::start, which makes all the parts")]
    pub(super) fn new(
        receiver: Receiver<Message>,
        shared: Arc<Shared>,
        journal: Journal,
        publish: watch::Sender<u64>,
        settings: &config::Spool,
        identity: Identity,
        recovered: &Recovered,
        directory: PathBuf,
    ) -> Self {
        let Identity { host_id, boot_id, key, build } = identity;
        let same_boot = recovered.header.as_ref().filter(|header| header.boot_id == boot_id.as_str());
        let lost_before = same_boot.map_or_else(LossTotals::default, |header| LossTotals {
            in_kernel: header.lost_in_kernel,
            in_agent: header.lost_in_agent,
        });
        let event_overhead = (host_id.as_str().len() + boot_id.as_str().len()) as u64 + EVENT_OVERHEAD;
        let position = shared.acknowledged.load(Ordering::Acquire);
        let now = Instant::now();
        Self {
            receiver,
            publish,
            sealer: Sealer::new(host_id, build, key, recovered.head.clone()),
            boot_id,
            bounds: Bounds::new(
                settings.max_bytes - settings.segment_bytes,
                settings.max_age(),
                given_up::unreported(&directory, &journal),
            ),
            reserve: Reserve::new(directory.clone(), settings.segment_bytes, settings.min_free_bytes),
            journal,
            directory,
            batch_events: settings.batch_events,
            batch_interval: settings.batch_interval(),
            event_overhead,
            lost_before,
            pending: Vec::new(),
            pending_bytes: 0,
            oldest: None,
            loss_reported: now,
            retry_at: None,
            position,
            position_written: now,
            bookkeeping_failed: false,
            shared,
        }
    }

    pub(super) fn run(mut self) {
        self.free(self.position);
        self.drop_stale_note();
        self.look_at_disk();
        while self.turn() {}
        self.finish();
    }

    /// Takes what came, writes what is due. False once the spool is closed and everything was taken.
    fn turn(&mut self) -> bool {
        if let Some(at) = self.retry_at {
            let until = self.shared.deadline().map_or(at, |deadline| deadline.min(at));
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
            if Instant::now() < until {
                return true;
            }
        } else {
            match self.receive() {
                Ok(Message::Event(event)) => self.take(*event),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            self.take_what_is_there();
        }
        self.look_at_disk_sometimes();
        if self.retry_at.is_none() {
            self.give_up_old();
        }
        if self.seal_is_due() {
            self.seal();
        }
        if self.journal.waiting() > 0 {
            self.write();
        }
        self.handle_acknowledgements(POSITION_INTERVAL);
        self.retry_at.is_none() || self.shared.deadline().is_none_or(|deadline| Instant::now() < deadline)
    }

    fn receive(&self) -> Result<Message, RecvTimeoutError> {
        let batch_due = self.oldest.map(|oldest| oldest + self.batch_interval);
        let loss_due = self.loss_due();
        let position_is_old = self.shared.acknowledged.load(Ordering::Acquire) > self.position;
        let position_due = position_is_old.then(|| self.position_written + POSITION_INTERVAL);
        match [batch_due, loss_due, position_due, self.age_due()].into_iter().flatten().min() {
            Some(due) => self.receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// One sync serves every batch that is already here.
    fn take_what_is_there(&mut self) {
        while self.journal.waiting() < MAX_GROUP {
            match self.receiver.try_recv() {
                Ok(Message::Event(event)) => self.take(*event),
                Ok(Message::Wake) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, mut event: AuditEvent) {
        // A clock set to nonsense must not make a batch that every collector refuses.
        event.time = event.time.filter(is_plausible);
        let bytes = event.encoded_len() as u64 + self.event_overhead;
        if bytes > MAX_EVENT_BYTES as u64 {
            return self.shared.loss.count(Reason::TooLarge, event.kind(), event.time);
        }
        if !self.fits(&event, bytes) {
            return self.shared.loss.count(Reason::SpoolFull, event.kind(), event.time);
        }
        if self.pending_bytes + bytes > MAX_BATCH_BYTES {
            self.seal();
        }
        self.pending.push(event);
        self.pending_bytes += bytes;
        self.oldest.get_or_insert_with(Instant::now);
        if self.pending.len() >= self.batch_events {
            self.seal();
        }
    }

    fn loss_due(&self) -> Option<Instant> {
        if self.bounds.has_unreported() {
            return Some(self.loss_reported + self.batch_interval);
        }
        let pause = if self.bounds.is_full() { LOSS_REPORT_WHEN_FULL } else { self.batch_interval };
        self.shared.loss.has_unreported().then(|| self.loss_reported + pause)
    }

    fn seal_is_due(&self) -> bool {
        if self.retry_at.is_some() {
            return false;
        }
        let now = Instant::now();
        self.oldest.is_some_and(|oldest| now >= oldest + self.batch_interval)
            || self.loss_due().is_some_and(|due| now >= due)
    }

    /// Seals what is pending, and reports losses with it.
    fn seal(&mut self) {
        let mut events = std::mem::take(&mut self.pending);
        events.extend_from_slice(&self.bounds.unreported[self.bounds.sealed..]);
        self.bounds.sealed = self.bounds.unreported.len();
        if self.has_room_for(MAX_LOSS_REPORT_BYTES) {
            events.extend(self.shared.loss.report());
        }
        self.loss_reported = Instant::now();
        self.pending_bytes = 0;
        self.oldest = None;
        if events.is_empty() {
            return;
        }
        let lost = LossTotals {
            in_kernel: self.lost_before.in_kernel + self.shared.lost_in_kernel.load(Ordering::Relaxed),
            in_agent: self.lost_before.in_agent + self.shared.loss.total(),
        };
        let count = events.len() as u64;
        let sealed = self.sealer.seal(&self.boot_id, events, lost);
        self.journal.add(&sealed, count);
    }

    fn write(&mut self) {
        let (stored, result) = self.journal.write();
        self.shared.stored_events.fetch_add(stored, Ordering::Relaxed);
        self.shared.bytes.store(self.journal.bytes(), Ordering::Relaxed);
        match result {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the spool can be written again");
                }
                self.shared.stored_sequence.store(self.sealer.head().last_sequence, Ordering::Release);
                self.settle_note();
            }
            Err(error) if is_disk_full(&error) && self.make_room_on_full_disk() => self.retry_at = None,
            Err(error) => {
                if self.retry_at.is_none() {
                    tracing::error!(
                        "the spool cannot be written: {error}; events are kept in memory, then dropped and counted, \
                         and writing is tried again every second"
                    );
                }
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
        self.publish_end();
        self.look_at_disk();
    }

    fn publish_end(&self) {
        let end = self.journal.end();
        self.publish.send_if_modified(|published| std::mem::replace(published, end) != end);
    }

    /// Frees what the collector has, and says whether that was anything. The position is written now and then only, losing it costs duplicates;
    /// a full spool cannot wait.
    pub(super) fn handle_acknowledgements(&mut self, pause: Duration) -> bool {
        let acknowledged = self.shared.acknowledged.load(Ordering::Acquire);
        let is_due = self.is_short_of_room()
            || self.position_written.elapsed() >= pause
            || acknowledged >= self.position + POSITION_BATCHES;
        if acknowledged <= self.position || !is_due {
            return false;
        }
        self.position_written = Instant::now();
        if let Err(error) = position::write(&self.directory, acknowledged) {
            self.note_bookkeeping_failure(&format!("cannot write down what was delivered: {error}"));
        } else {
            self.position = acknowledged;
        }
        self.free(acknowledged);
        self.look_at_disk();
        self.position >= acknowledged
    }

    fn free(&mut self, acknowledged: u64) {
        if let Err(error) = self.journal.remove_before(acknowledged) {
            self.note_bookkeeping_failure(&format!("cannot delete what was delivered: {error}"));
        }
        self.shared.bytes.store(self.journal.bytes(), Ordering::Relaxed);
    }

    /// Said once: it is tried again with every acknowledgement, and costs disk space and duplicates, no events.
    pub(super) fn note_bookkeeping_failure(&mut self, what: &str) {
        if !std::mem::replace(&mut self.bookkeeping_failed, true) {
            tracing::warn!("spool {}: {what}", self.directory.display());
        }
    }

    /// Everything that was pushed was taken: write it, for as long as the deadline allows.
    fn finish(mut self) {
        // A disk that refused may have left events in the queue.
        while let Ok(message) = self.receiver.try_recv() {
            if let Message::Event(event) = message {
                self.take(*event);
            }
        }
        self.seal();
        while self.journal.waiting() > 0 {
            self.write();
            let now = Instant::now();
            if self.retry_at.is_some() {
                if self.shared.deadline().is_none_or(|deadline| now >= deadline) {
                    break;
                }
                thread::sleep(FINAL_RETRY);
            }
        }
        let unwritten = self.journal.waiting_events();
        if unwritten > 0 {
            self.shared.loss.count_unreported(unwritten);
            tracing::error!(events = unwritten, "the disk refused until the end: these events are lost");
        }
        self.handle_acknowledgements(Duration::ZERO);
    }
}

fn is_disk_full(error: &RecordsError) -> bool {
    matches!(error, RecordsError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

/// Within the bounds of `docs/formats/batch.md`.
fn is_plausible(time: &Timestamp) -> bool {
    (0..YEAR_2200).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}
