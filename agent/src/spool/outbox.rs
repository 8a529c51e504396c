//! The uplink's side of the spool: batches in order, from the first that the collector does not have.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use buildtrail_evidence::{
    batch::{self, decode_header},
    records::{Entry, Quarantined, Reader, RecordIndex, RecordsError},
};
use buildtrail_proto::v1::SignedBatch;
use prost::Message as _;
use tokio::sync::watch;

use super::{Message, Shared, journal::MAX_RECORD_BYTES, position};

/// A batch on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its number in the host's chain: what the collector acknowledges.
    pub number: u64,
    /// Where it stands in the spool: what [`Outbox::acknowledge`] takes.
    pub index: RecordIndex,
    /// The batch, as it was signed.
    pub batch: SignedBatch,
}

/// The next batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The operating system refused.
    #[error("the spool cannot be read: {0}")]
    Records(#[from] RecordsError),
    /// Damage on the disk. Reading goes on behind it.
    #[error("the spool is damaged: {0}")]
    Damaged(Quarantined),
    /// A record that is no batch. Reading goes on behind it.
    #[error("record {0} of the spool is not a batch")]
    NotABatch(RecordIndex),
}

/// Reads batches that are on disk and takes acknowledgements.
pub struct Outbox {
    directory: PathBuf,
    durable: watch::Receiver<u64>,
    shared: Arc<Shared>,
    reader: Option<Reader>,
    /// Which rewriting of the records the reader has seen.
    generation: u64,
    /// Batches that were returned and not acknowledged, oldest first.
    returned: VecDeque<Returned>,
    /// Something could not be read since the last batch that was returned.
    behind_loss: bool,
}

struct Returned {
    index: RecordIndex,
    boot_id: String,
    last_sequence: u64,
    bytes: u64,
}

impl Outbox {
    pub(super) fn new(directory: &Path, durable: watch::Receiver<u64>, shared: Arc<Shared>) -> Self {
        Self {
            directory: directory.to_owned(),
            durable,
            shared,
            reader: None,
            generation: 0,
            returned: VecDeque::new(),
            behind_loss: false,
        }
    }

    /// Starts again with the first batch that is not acknowledged.
    pub fn rewind(&mut self) {
        self.reader = None;
        self.returned.clear();
        self.behind_loss = false;
    }

    /// Whether batches wait that [`Self::read_next`] has not returned and may return now, as far as is known without
    /// reading. What is on its way cannot be given up, so it is never more than a part of the spool.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let on_the_way: u64 = self.returned.iter().map(|returned| returned.bytes).sum();
        if on_the_way > self.shared.most_on_the_way {
            return false;
        }
        let position = match &self.reader {
            Some(reader) => reader.position().0,
            None => self.first_unacknowledged(),
        };
        position < *self.durable.borrow()
    }

    /// Whether the collector has everything that is on disk.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.first_unacknowledged() >= *self.durable.borrow()
    }

    /// Waits until something was written since the last call. Returns false when the spool has ended and nothing more
    /// will come. Cancel safe.
    pub async fn changed(&mut self) -> bool {
        self.durable.changed().await.is_ok()
    }

    /// The next batch, or `None` when all that is on disk was returned. Reads from disk. The first batch behind damage
    /// carries the host's word that those before it are lost.
    ///
    /// # Errors
    /// The batch cannot be read; the next call goes on behind damage, and tries again after a refusal of the system.
    pub fn read_next(&mut self) -> Result<Option<Outgoing>, OutboxError> {
        let end = RecordIndex(*self.durable.borrow());
        let first = RecordIndex(self.first_unacknowledged());
        let shared = self.shared.clone();
        // What is handed out may arrive, so it must not be given up at the same time.
        let mut handing = shared.handing_out.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = |from| Reader::up_to(&self.directory.join("records"), MAX_RECORD_BYTES, from, end);
        let mut reader = match self.reader.take() {
            Some(reader) if self.generation == handing.generation => reader,
            Some(reader) => begin(reader.position())?,
            None => begin(first)?,
        };
        self.generation = handing.generation;
        reader.advance_end(end);
        let found = match reader.next() {
            None => Ok(None),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Entry::Quarantined(range))) => {
                self.behind_loss = true;
                Err(OutboxError::Damaged(range))
            }
            Some(Ok(Entry::Record { index, payload })) => {
                handing.end = handing.end.max(index.next().0);
                self.return_batch(index, &payload).map(Some)
            }
        };
        self.reader = Some(reader);
        found
    }

    fn return_batch(&mut self, index: RecordIndex, payload: &[u8]) -> Result<Outgoing, OutboxError> {
        let decoded = SignedBatch::decode(payload).ok();
        let decoded =
            decoded.and_then(|batch| decode_header(&batch.header).ok().map(|header| (batch, header)));
        let Some((mut batch, header)) = decoded else {
            self.behind_loss = true;
            return Err(OutboxError::NotABatch(index));
        };
        if std::mem::take(&mut self.behind_loss) {
            batch::say_lost_before(&self.shared.key, &mut batch);
        }
        let (boot_id, last_sequence, bytes) = (header.boot_id, header.last_sequence, payload.len() as u64);
        self.returned.push_back(Returned { index, boot_id, last_sequence, bytes });
        Ok(Outgoing { number: header.number, index, batch })
    }

    /// The collector has this batch and all before it on its disk: the spool may delete them.
    pub fn acknowledge(&mut self, index: RecordIndex) {
        while let Some(returned) = self.returned.pop_front_if(|returned| returned.index <= index) {
            if returned.boot_id == self.shared.boot_id.as_str() {
                self.shared.delivered_sequence.fetch_max(returned.last_sequence, Ordering::AcqRel);
            }
        }
        let before = self.shared.acknowledged.fetch_max(index.next().0, Ordering::AcqRel);
        if before <= index.0 {
            // A full queue means that the thread is awake anyway.
            let _ = self.shared.send(Message::Wake);
        }
    }

    /// Writes down what is acknowledged, if the spool has ended and cannot do that itself any more.
    pub fn remember(&self) {
        let spool_has_ended = self.durable.has_changed().is_err();
        if spool_has_ended && let Err(error) = position::write(&self.directory, self.first_unacknowledged()) {
            tracing::warn!("cannot write down what was delivered: {error}; the next start sends it again");
        }
    }

    fn first_unacknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Acquire)
    }
}
