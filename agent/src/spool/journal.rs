//! The spool's disk side: sealed batches go in, and stay in memory until they are known to be on disk.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use buildtrail_evidence::{
    batch::{ChainHead, Sealed, decode_header},
    digest::Digest,
    id::BootId,
    records::{ClosedSegment, Entry, Limits, Reader, RecordIndex, RecordLog, RecordsError},
};
use buildtrail_proto::v1::{AuditEvent, BatchHeader, SignedBatch};
use prost::Message as _;

use super::given_up::Plan;

/// Longest encoded batch, in bytes.
pub(super) const MAX_RECORD_BYTES: u32 = 3 * 1024 * 1024;

/// Bytes that the record files add to each batch.
const FRAME_BYTES: u64 = 12;

/// What the last record says.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) head: ChainHead,
    /// Header of the last batch; absent when there is none.
    pub(super) header: Option<BatchHeader>,
    /// Index of the last batch's record.
    last: Option<RecordIndex>,
}

/// What may be given up: the less comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Bulk,
    Everything,
}

impl Recovered {
    /// Number of the last event of that boot; 0 when there is none.
    pub(super) fn sequence_in(&self, boot_id: &BootId) -> u64 {
        if self.head.boot_id == boot_id.as_str() { self.head.last_sequence } else { 0 }
    }
}

struct Waiting {
    number: u64,
    events: u64,
    record: Vec<u8>,
}

/// Append-only files plus what they have not taken yet.
pub(super) struct Journal {
    directory: PathBuf,
    limits: Limits,
    /// Closed after a failure that leaves the files' state unknown; opened again by the next write.
    log: Option<RecordLog>,
    /// Sealed batches that are not known to be on disk, oldest first. The first `appended` of them are in the file.
    waiting: VecDeque<Waiting>,
    appended: usize,
    last: Option<RecordIndex>,
    /// As of the last time the log was open.
    end: u64,
    log_bytes: u64,
    /// Closed segments, by their first record, of which nothing of that level is left.
    exhausted: BTreeMap<u64, Level>,
}

impl Journal {
    pub(super) fn open(directory: &Path, segment_bytes: u64) -> Result<(Self, Recovered), RecordsError> {
        let directory = directory.join("records");
        let limits = Limits { max_record_bytes: MAX_RECORD_BYTES, segment_bytes };
        let (log, recovered) = open_log(&directory, limits)?;
        let (end, log_bytes, last) = (log.durable_end().0, log.total_bytes(), recovered.last);
        let journal = Self {
            directory,
            limits,
            log: Some(log),
            waiting: VecDeque::new(),
            appended: 0,
            last,
            end,
            log_bytes,
            exhausted: BTreeMap::new(),
        };
        Ok((journal, recovered))
    }

    /// Index behind the last record on disk.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Bytes on disk once everything that waits is written.
    pub(super) fn planned_bytes(&self) -> u64 {
        let unwritten = self.waiting.iter().skip(self.appended);
        self.log_bytes + unwritten.map(|batch| batch.record.len() as u64 + FRAME_BYTES).sum::<u64>()
    }

    /// Batches not known to be on disk.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Events in those batches.
    pub(super) fn waiting_events(&self) -> u64 {
        self.waiting.iter().map(|batch| batch.events).sum()
    }

    pub(super) fn add(&mut self, sealed: &Sealed, events: u64) {
        let record = sealed.batch.encode_to_vec();
        self.waiting.push_back(Waiting { number: sealed.head.number, events, record });
    }

    /// Writes and syncs everything that waits; returns how many events are on disk that were not before, also when it
    /// fails half-way. After a failure it may be called again: a batch is never written twice.
    pub(super) fn write(&mut self) -> (u64, Result<(), RecordsError>) {
        let before = self.waiting_events();
        let result = self.try_write();
        if let Some(log) = &self.log {
            self.end = log.durable_end().0;
            self.log_bytes = log.total_bytes();
        }
        if matches!(result, Err(ref error) if !is_retryable(error)) {
            self.log = None;
            self.appended = 0;
        }
        (before - self.waiting_events(), result)
    }

    fn try_write(&mut self) -> Result<(), RecordsError> {
        let mut log = match self.log.take() {
            Some(log) => log,
            None => self.open_again()?,
        };
        let result = self.append_and_sync(&mut log);
        self.log = Some(log);
        result
    }

    fn append_and_sync(&mut self, log: &mut RecordLog) -> Result<(), RecordsError> {
        while let Some(batch) = self.waiting.get(self.appended) {
            self.last = Some(log.append(&batch.record)?);
            self.appended += 1;
        }
        log.sync()?;
        self.waiting.clear();
        self.appended = 0;
        Ok(())
    }

    /// After a failed sync nobody knows what is on disk: read it, and drop from what waits the batches that are there.
    fn open_again(&mut self) -> Result<RecordLog, RecordsError> {
        let (log, recovered) = open_log(&self.directory, self.limits)?;
        while self.waiting.front().is_some_and(|batch| batch.number <= recovered.head.number) {
            self.waiting.pop_front();
        }
        self.last = recovered.last;
        Ok(log)
    }

    /// Deletes files that hold only records before `index`. The last record always stays: it is the chain's head.
    pub(super) fn remove_before(&mut self, index: u64) -> Result<(), RecordsError> {
        let (Some(log), Some(last)) = (self.log.as_mut(), self.last) else { return Ok(()) };
        let removed = log.remove_segments_before(RecordIndex(index).min(last));
        self.log_bytes = log.total_bytes();
        self.exhausted = self.exhausted.split_off(&log.first().0);
        removed.map(drop)
    }

    /// First record of the segment that is being written: changes whenever one more is closed.
    pub(super) fn active_first(&self) -> u64 {
        self.active().map_or(self.end, |active| active.first.0)
    }

    /// Bytes of the segment that is being written.
    pub(super) fn active_bytes(&self) -> u64 {
        self.active().map_or(0, |active| active.bytes)
    }

    fn active(&self) -> Option<ClosedSegment> {
        let log = self.log.as_ref()?;
        let closed = log.closed_segments();
        let (first, closed_bytes) =
            closed.fold((log.first(), 0), |(_, sum), segment| (segment.end, sum + segment.bytes));
        Some(ClosedSegment { first, end: log.durable_end(), bytes: log.total_bytes() - closed_bytes })
    }

    /// What of the oldest segment that has something to give up, from record `floor` on, would go. The segment that is
    /// being written is looked at `with_active` alone. Where `level` is given, segments that have nothing of it left
    /// are remembered and passed over.
    pub(super) fn plan(
        &mut self,
        floor: RecordIndex,
        with_active: bool,
        level: Option<Level>,
        gives_up: &dyn Fn(&AuditEvent) -> bool,
    ) -> Result<Option<(RecordIndex, Plan)>, RecordsError> {
        let Some(log) = &self.log else { return Ok(None) };
        let closed: Vec<ClosedSegment> =
            log.closed_segments().filter(|segment| segment.end > floor).collect();
        let active = self.active().filter(|_| with_active).map(|segment| (segment, false));
        for (segment, is_closed) in closed.into_iter().map(|segment| (segment, true)).chain(active) {
            let left = self.exhausted.get(&segment.first.0).copied();
            if left.is_some_and(|left| left >= level.unwrap_or(Level::Everything)) {
                continue;
            }
            let from = segment.first.max(floor);
            let plan =
                Plan::make(Reader::up_to(&self.directory, MAX_RECORD_BYTES, from, segment.end)?, gives_up)?;
            if !plan.is_empty() {
                return Ok(Some((segment.first, plan)));
            }
            match level {
                Some(level) if is_closed => self.exhausted.insert(segment.first.0, level),
                Some(_) => None,
                // Without a level it is age that counts, and what follows is younger.
                None => return Ok(None),
            };
        }
        Ok(None)
    }

    /// Replaces records of a segment as planned. Whether it was done: a damaged segment is left alone, and remembered.
    pub(super) fn replace(
        &mut self,
        first: RecordIndex,
        plan: &Plan,
        level: Option<Level>,
    ) -> Result<bool, RecordsError> {
        let is_active = self.active().is_some_and(|active| active.first == first);
        let Some(log) = self.log.as_mut() else { return Ok(false) };
        if is_active {
            log.rotate()?;
        }
        let replaced = log.rewrite_segment(first, |index, _| plan.replaced.get(&index).cloned());
        self.log_bytes = log.total_bytes();
        let replaced = replaced?;
        if let Some(level) = level.or((!replaced).then_some(Level::Everything)) {
            self.exhausted.insert(first.0, level);
        }
        Ok(replaced)
    }

    /// All batches that can be read.
    pub(super) fn batches(&self) -> impl Iterator<Item = SignedBatch> {
        let reader = self.log.as_ref().and_then(|log| log.reader(log.first()).ok());
        reader.into_iter().flatten().filter_map(|entry| match entry {
            Ok(Entry::Record { payload, .. }) => SignedBatch::decode(&payload[..]).ok(),
            _ => None,
        })
    }
}

/// Whether the log may be used again as it is: an append that failed was undone.
fn is_retryable(error: &RecordsError) -> bool {
    matches!(error, RecordsError::Io { action: "append to", .. })
}

fn open_log(directory: &Path, limits: Limits) -> Result<(RecordLog, Recovered), RecordsError> {
    let (log, recovery) = RecordLog::open(directory, limits)?;
    if let Some(tail) = &recovery.torn_tail {
        tracing::info!(bytes = tail.bytes, "cut off an unfinished batch at the end of the spool");
    }
    for damage in &recovery.quarantined {
        tracing::error!("the spool is damaged: {damage}; these batches cannot be sent");
    }
    let recovered = last_batch(&log)?;
    Ok((log, recovered))
}

/// The last batch that can be read: usually the last record, unless damage stands there.
fn last_batch(log: &RecordLog) -> Result<Recovered, RecordsError> {
    let near_the_end = RecordIndex(log.end().0.saturating_sub(1));
    for from in [near_the_end, log.first()] {
        let mut found = None;
        for entry in log.reader(from)? {
            if let Entry::Record { index, payload } = entry?
                && let Some(recovered) = decode(index, &payload)
            {
                found = Some(recovered);
            }
        }
        if let Some(recovered) = found {
            return Ok(recovered);
        }
    }
    Ok(Recovered::default())
}

fn decode(index: RecordIndex, payload: &[u8]) -> Option<Recovered> {
    let batch = SignedBatch::decode(payload).ok()?;
    let header = decode_header(&batch.header).ok()?;
    let head = ChainHead::after(&header, Digest::of(&batch.header));
    Some(Recovered { head, header: Some(header), last: Some(index) })
}
