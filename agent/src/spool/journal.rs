//! The spool's disk side: sealed batches go in, and stay in memory until they are known to be on disk.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use buildtrail_evidence::{
    batch::{ChainHead, Sealed, decode_header},
    digest::Digest,
    records::{Entry, Limits, RecordIndex, RecordLog, RecordsError},
};
use buildtrail_proto::v1::{BatchHeader, SignedBatch};
use prost::Message as _;

/// Longest encoded batch, in bytes.
pub(super) const MAX_RECORD_BYTES: u32 = 3 * 1024 * 1024;

/// Bytes that the record files add to each batch.
const FRAME_BYTES: u64 = 8;

/// What the last record says.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) head: ChainHead,
    /// Header of the last batch; absent when there is none.
    pub(super) header: Option<BatchHeader>,
    /// Index of the last batch's record.
    last: Option<RecordIndex>,
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
        log.remove_segments_before(RecordIndex(index).min(last))?;
        self.log_bytes = log.total_bytes();
        Ok(())
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
