//! Bringing the index up to the end of the log, at start.

use std::time::{Duration, Instant};

use buildtrail_evidence::{
    batch,
    digest::Digest,
    log::LogEntry,
    records::{Entry, RecordIndex, RecordLog},
};

use super::{Store, StoreError};
use crate::ledger::{Item, ItemEntry};

/// Records per transaction.
const GROUP: usize = 256;
/// Between two progress messages.
const PROGRESS: Duration = Duration::from_secs(3);

impl Store {
    /// Indexes what the log holds and the index does not. `log_was_cut` says that opening the log found damage.
    /// Returns how many records were indexed.
    pub(crate) fn catch_up(&mut self, log: &RecordLog, log_was_cut: bool) -> Result<u64, StoreError> {
        if !self.belongs_to(log)? {
            tracing::warn!("the index is of another log: it is made anew");
            self.reset()?;
            self.belongs_to(log)?;
        }
        let from = self.next_record()?;
        let mut waiting = Vec::with_capacity(GROUP);
        let (mut done, mut told) = (0, Instant::now());
        for entry in log.reader(from)? {
            match entry? {
                Entry::Record { index, payload } => {
                    let entry = self.decode(index, &payload)?;
                    let is_host = matches!(entry, Some(ItemEntry::Host(_)));
                    waiting.extend(entry.map(|entry| Item { record: index, entry }));
                    if is_host {
                        // Its batches can only be opened once it is indexed.
                        self.flush(&mut waiting)?;
                    }
                }
                Entry::Quarantined(range) => {
                    tracing::error!(%range, "the log is damaged; `buildtrail verify` names what is missing");
                    self.flush(&mut waiting)?;
                    self.mark_damaged(range.end)?;
                }
            }
            done += 1;
            if waiting.len() >= GROUP {
                self.flush(&mut waiting)?;
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let (at, end) = (from.0 + done, log.end().0);
                let percent = at.saturating_mul(100) / end.max(1);
                tracing::info!(records = at, of = end, percent, "indexing the log");
            }
        }
        self.flush(&mut waiting)?;
        if log_was_cut {
            self.mark_damaged(RecordIndex(0))?;
        }
        Ok(done)
    }

    fn flush(&mut self, waiting: &mut Vec<Item>) -> Result<(), StoreError> {
        self.apply(waiting)?;
        waiting.clear();
        Ok(())
    }

    /// What a record says, if it is right; damage that a checksum does not show is logged and left out.
    fn decode(&self, index: RecordIndex, payload: &[u8]) -> Result<Option<ItemEntry>, StoreError> {
        let signed = match LogEntry::decode(payload) {
            Ok(LogEntry::Host(host)) => return Ok(Some(ItemEntry::Host(host))),
            Ok(LogEntry::Collector(entry)) => return Ok(Some(ItemEntry::Collector(entry))),
            Ok(LogEntry::Batch(signed)) => signed,
            Err(error) => {
                tracing::error!(record = %index, %error, "not indexed");
                return Ok(None);
            }
        };
        let host_id = batch::decode_header(&signed.header).map(|header| header.host_id).unwrap_or_default();
        let Some(key) = self.host_key(&host_id)? else {
            tracing::error!(record = %index, host_id, "not indexed: the host's key is not in the log before it");
            return Ok(None);
        };
        match batch::open(&signed, &key) {
            Ok(opened) => Ok(Some(ItemEntry::Batch(Box::new(opened)))),
            Err(error) => {
                tracing::error!(record = %index, host_id, %error, "not indexed");
                Ok(None)
            }
        }
    }

    /// Whether this is an index of `log`, which it recognises by the first record. A new index takes it from the log.
    fn belongs_to(&self, log: &RecordLog) -> Result<bool, StoreError> {
        let next = self.next_record()?;
        if next > log.end() {
            return Ok(false);
        }
        let first = match log.reader(RecordIndex(0))?.next() {
            Some(Ok(Entry::Record { payload, .. })) => Digest::of(&payload),
            Some(Err(error)) => return Err(error.into()),
            // The first record cannot be read: nothing speaks against it.
            Some(Ok(Entry::Quarantined(_))) | None => return Ok(true),
        };
        match self.origin()? {
            Some(origin) => Ok(origin == first),
            None if next == RecordIndex(0) => {
                self.connection.execute("UPDATE state SET origin = ?1", [first.as_bytes()])?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
