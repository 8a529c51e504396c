//! The ledger: the log as the truth, and the order of each host's batches.
//!
//! In: opened batches from all streams. Out: an answer for each once it is on disk, and what was stored, for the index.
//! One thread writes; what waits is written and synced as one group, however many hosts it came from.
//! Must never answer before the sync, nor store a batch that does not follow its host's chain.

mod forks;
mod space;
mod writer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};

use buildtrail_evidence::{
    batch::OpenedBatch,
    chain::{Chain, ChainError},
    id::HostId,
    key::HostPublicKey,
    log::HostRecord,
    records::{RecordIndex, RecordLog},
};
use buildtrail_proto::v1::{CollectorEntry, SignedBatch};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use writer::Writer;

pub(crate) use forks::Forks;
pub(crate) use space::Space;

use crate::{dark::Watch, health::Health, peer::Host, store::Reader, tree::Message};

/// Batches that wait for the writer, over all streams.
const QUEUE: usize = 256;
/// Groups that wait for the tree.
pub(crate) const TREE_QUEUE: usize = 64;
/// Groups that wait for the index; a slow index slows down ingest rather than filling memory.
pub(crate) const INDEX_QUEUE: usize = 64;

/// What the log holds, decoded: for the index.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) record: RecordIndex,
    pub(crate) entry: ItemEntry,
}

#[derive(Debug)]
pub(crate) enum ItemEntry {
    Host(HostRecord),
    Batch(Box<OpenedBatch>),
    Collector(CollectorEntry),
    /// The events of these records' batches are gone.
    Thinned {
        first: RecordIndex,
        end: RecordIndex,
    },
}

/// Why a batch was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "this host id is known here with another key; a new key needs a new host id: issue a new certificate"
    )]
    ForeignKey,
    #[error("this cannot stand in the log: {0}; issue a smaller certificate")]
    NoLeaf(String),
    #[error("the collector cannot store batches now ({0}); keep them and try again later")]
    Disk(String),
    #[error("the collector is stopping; keep the batches and try again later")]
    Stopping,
}

/// What became of a batch that needs no further action of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Stored,
    KnownAlready,
}

pub(crate) type Answer = Result<Kept, LedgerError>;

/// A host as the writer knows it.
#[derive(Debug)]
pub(crate) struct KnownHost {
    pub(crate) key: HostPublicKey,
    pub(crate) chain: Chain,
}

/// All hosts in the log, and whether some of the log was lost.
#[derive(Debug, Default)]
pub(crate) struct KnownHosts {
    pub(crate) hosts: HashMap<HostId, KnownHost>,
    /// Second histories that are in the log already.
    pub(crate) forks: Forks,
    /// Records were lost here: a host that seems new may have had batches before.
    pub(crate) damaged: bool,
}

/// What waits for the writer.
struct Submission {
    what: Submitted,
    answer: oneshot::Sender<Answer>,
}

enum Submitted {
    Batch {
        host: Arc<Host>,
        signed: SignedBatch,
        opened: Box<OpenedBatch>,
    },
    Act {
        entry: CollectorEntry,
        last: bool,
    },
    /// Remove the events of the closed segment that begins here.
    Thin {
        first: RecordIndex,
    },
    /// Close the segment that is being written.
    Rotate,
}

/// What the writer works with.
pub(crate) struct Around {
    /// Answers questions about batches too old for memory.
    pub(crate) lookup: Reader,
    /// Receives what was stored, in the order of the log.
    pub(crate) indexed: mpsc::Sender<Vec<Item>>,
    /// Receives the leaves of what was stored.
    pub(crate) tree: SyncSender<Message>,
    pub(crate) health: Arc<Health>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) space: Space,
}

/// Where streams hand in their batches. Clones share one writer; it ends behind the last act.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    sender: mpsc::Sender<Submission>,
    durable_end: Arc<AtomicU64>,
}

impl Ledger {
    /// Starts the writer on a blocking thread. The writer's result is an error when the log failed.
    pub(crate) fn start(
        log: RecordLog,
        known: KnownHosts,
        around: Around,
    ) -> (Self, JoinHandle<Result<(), LedgerError>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let durable_end = Arc::new(AtomicU64::new(log.durable_end().0));
        let Around { lookup, indexed, health, tree, watch, space } = around;
        let durable = durable_end.clone();
        let writer = Writer {
            log,
            known,
            lookup,
            indexed,
            health,
            durable_end: durable,
            tree,
            watch,
            space,
            leaves: Vec::new(),
        };
        let writing = tokio::task::spawn_blocking(move || writer.run(receiver));
        (Self { sender, durable_end }, writing)
    }

    /// Hands in a batch; the answer comes when it is on disk or refused. Waits while the queue is full.
    pub(crate) async fn submit(
        &self,
        host: Arc<Host>,
        signed: SignedBatch,
        opened: OpenedBatch,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        // When the writer is gone the sender of the answer is dropped, which the receiver sees.
        let what = Submitted::Batch { host, signed, opened: Box::new(opened) };
        let _ = self.sender.send(Submission { what, answer }).await;
        receiver
    }

    /// Hands in what the collector did or noticed. After the last one the writer ends.
    pub(crate) async fn submit_act(
        &self,
        entry: CollectorEntry,
        answer: oneshot::Sender<Answer>,
        last: bool,
    ) {
        let _ = self.sender.send(Submission { what: Submitted::Act { entry, last }, answer }).await;
    }

    /// Removes the events of the batches in the closed segment that begins with `first`.
    ///
    /// # Errors
    /// There is no such segment, it is damaged, the disk refuses, or the collector is stopping.
    pub(crate) async fn thin(&self, first: RecordIndex) -> Result<(), LedgerError> {
        self.order(Submitted::Thin { first }).await
    }

    /// Closes the segment that is being written.
    ///
    /// # Errors
    /// The disk refuses, or the collector is stopping.
    pub(crate) async fn rotate(&self) -> Result<(), LedgerError> {
        self.order(Submitted::Rotate).await
    }

    async fn order(&self, what: Submitted) -> Result<(), LedgerError> {
        let (answer, receiver) = oneshot::channel();
        let _ = self.sender.send(Submission { what, answer }).await;
        receiver.await.unwrap_or(Err(LedgerError::Stopping)).map(|_| ())
    }

    /// Every record before this one is on disk.
    pub(crate) fn durable_end(&self) -> RecordIndex {
        RecordIndex(self.durable_end.load(Ordering::Acquire))
    }
}
