//! The one thread that writes the log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::SyncSender,
};

use buildtrail_evidence::{
    batch::{self, OpenedBatch},
    chain::{Accepted, Chain, ChainError},
    log::{HostRecord, LogEntry, leaf_bytes},
    records::{RecordIndex, RecordLog, RecordsError},
};
use buildtrail_proto::v1::{BatchesLost, CollectorEntry, SignedBatch, collector_entry::Act};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Item, ItemEntry, Kept, KnownHost, KnownHosts, LedgerError, Space, Submission, Submitted,
};
use crate::{acts, dark::Watch, health::Health, peer::Host, store::Reader, tree::Message};

/// Most batches, and about the most bytes, in one group.
const GROUP_BATCHES: usize = 256;
const GROUP_BYTES: usize = 32 << 20;

pub(super) struct Writer {
    pub(super) log: RecordLog,
    pub(super) known: KnownHosts,
    pub(super) lookup: Reader,
    pub(super) indexed: mpsc::Sender<Vec<Item>>,
    pub(super) health: Arc<Health>,
    pub(super) durable_end: Arc<AtomicU64>,
    pub(super) tree: SyncSender<Message>,
    pub(super) watch: Arc<Watch>,
    pub(super) space: Space,
    /// Of records that are appended and not synced.
    pub(super) leaves: Vec<Vec<u8>>,
}

impl Writer {
    pub(super) fn run(mut self, receiver: mpsc::Receiver<Submission>) -> Result<(), LedgerError> {
        let outcome = self.write(receiver);
        // A keeper that is gone has nothing left to sign.
        let _ = self.tree.send(Message::Last);
        outcome
    }

    fn write(&mut self, mut receiver: mpsc::Receiver<Submission>) -> Result<(), LedgerError> {
        while let Some(first) = receiver.blocking_recv() {
            let group = take_group(first, &mut receiver);
            let last = group.iter().any(Submission::is_last);
            let items = self.commit(group)?;
            if !items.is_empty() && self.indexed.blocking_send(items).is_err() {
                // The index is gone, so the collector is stopping; the log has everything.
                return Ok(());
            }
            if last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Stores a group, syncs once, answers all. An error means that the log can no longer be written.
    fn commit(&mut self, group: Vec<Submission>) -> Result<Vec<Item>, LedgerError> {
        let mut items = Vec::new();
        let mut answers = Vec::with_capacity(group.len());
        if let Some(change) = self.space.look() {
            // That it could not be written was said.
            let _ = self.note(acts::entry(change), &mut items);
        }
        for Submission { what, answer } in group {
            let (events, kept) = match what {
                Submitted::Batch { .. } if self.space.refuses() => (None, Err(full())),
                Submitted::Batch { host, signed, opened } => {
                    let events = opened.events.len() as u64;
                    (Some(events), self.store(&host, signed, *opened, &mut items))
                }
                Submitted::Act { entry, .. } => (None, self.note(entry, &mut items)),
                Submitted::Thin { first } => (None, self.thin(first, &mut items)),
                Submitted::Rotate => (None, self.log.rotate().map(|()| Kept::Stored).map_err(disk)),
            };
            answers.push((answer, events, kept));
        }
        match self.log.sync() {
            Ok(end) => {
                self.durable_end.store(end.0, Ordering::Release);
                self.pass_on_leaves();
            }
            Err(error) => {
                let failed = LedgerError::Disk(error.to_string());
                for (answer, ..) in answers {
                    send(answer, Err(failed.clone()));
                }
                return Err(failed);
            }
        }
        for (answer, events, kept) in answers {
            if let Some(events) = events {
                self.count(events, &kept);
            }
            send(answer, kept);
        }
        Ok(items)
    }

    fn pass_on_leaves(&mut self) {
        let leaves = std::mem::take(&mut self.leaves);
        if !leaves.is_empty() && self.tree.send(Message::Leaves(leaves)).is_err() {
            tracing::error!("the tree is not kept any more; the next start goes on from the log");
        }
    }

    fn note(&mut self, entry: CollectorEntry, items: &mut Vec<Item>) -> Answer {
        let record = self.append(&LogEntry::Collector(entry.clone())).inspect_err(|error| {
            tracing::error!(kind = entry.kind(), %error, "an entry could not be written to the log");
        })?;
        items.push(Item { record, entry: ItemEntry::Collector(entry) });
        Ok(Kept::Stored)
    }

    fn store(
        &mut self,
        host: &Host,
        signed: SignedBatch,
        opened: OpenedBatch,
        items: &mut Vec<Item>,
    ) -> Answer {
        let accepted = match self.place(host, &opened) {
            Ok(accepted @ (Accepted::New | Accepted::NewBehindLoss)) => accepted,
            Ok(Accepted::Duplicate) => {
                self.heard(host, items);
                return Ok(Kept::KnownAlready);
            }
            Err(error) => {
                self.detect_fork(&error, host, &signed, items);
                return Err(error);
            }
        };
        if !self.known.hosts.contains_key(&host.id) {
            self.introduce(host, self.new_chain(), items)?;
        }
        self.heard(host, items);
        if accepted == Accepted::NewBehindLoss {
            self.note(acts::entry(self.lost(host, &signed, &opened)), items)?;
        }
        let record = self.append(&LogEntry::Batch(signed))?;
        if let Some(known) = self.known.hosts.get_mut(&host.id) {
            known.chain.advance(&opened);
        }
        items.push(Item { record, entry: ItemEntry::Batch(Box::new(opened)) });
        Ok(Kept::Stored)
    }

    /// The batches between the head of a host's chain and this one.
    fn lost(&self, host: &Host, signed: &SignedBatch, next: &OpenedBatch) -> Act {
        let last = self.known.hosts.get(&host.id).map_or(0, |known| known.chain.head().number);
        let act = BatchesLost {
            host_id: host.id.to_string(),
            name: host.name.clone(),
            first: last + 1,
            last: next.header.number - 1,
            next_digest: next.digest.as_bytes().to_vec(),
            signature: signed.lost_before.clone(),
        };
        tracing::error!(
            host = %host.id, name = host.name, first = act.first, last = act.last,
            "batches are missing for good: the host's spool was damaged"
        );
        Act::BatchesLost(act)
    }

    /// Where a batch belongs in its host's chain.
    fn place(&self, host: &Host, opened: &OpenedBatch) -> Result<Accepted, LedgerError> {
        match self.known.hosts.get(&host.id) {
            Some(known) if known.key != host.key => Err(LedgerError::ForeignKey),
            Some(known) => self.check(&known.chain, host, opened),
            None => self.check(&self.new_chain(), host, opened),
        }
    }

    fn heard(&mut self, host: &Host, items: &mut Vec<Item>) {
        if let Some(back) = self.watch.heard(&host.id, &host.name) {
            // That it could not be written was said.
            let _ = self.note(acts::entry(back), items);
        }
    }

    fn detect_fork(&mut self, error: &LedgerError, host: &Host, batch: &SignedBatch, items: &mut Vec<Item>) {
        let LedgerError::Chain(ChainError::Fork { number }) = error else { return };
        if let Some(fork) = self.known.forks.detect(host, batch, *number) {
            // That it could not be written was said.
            let _ = self.note(acts::entry(fork), items);
        }
    }

    /// Removes the events of a closed segment's batches. What is damaged there stays as it is.
    fn thin(&mut self, first: RecordIndex, items: &mut Vec<Item>) -> Answer {
        let closed = self.log.closed_segments().find(|closed| closed.first == first);
        let Some(closed) = closed else {
            return Err(LedgerError::Disk(format!("no segment begins at {first}")));
        };
        let rewritten = self.log.rewrite_segment(first, |_, record| without_events(record)).map_err(disk)?;
        if !rewritten {
            return Err(LedgerError::Disk(format!("the segment from record {first} on is damaged")));
        }
        let record = RecordIndex(self.log.end().0.saturating_sub(1));
        items.push(Item { record, entry: ItemEntry::Thinned { first, end: closed.end } });
        Ok(Kept::Stored)
    }

    fn check(&self, chain: &Chain, host: &Host, opened: &OpenedBatch) -> Result<Accepted, LedgerError> {
        let number = opened.header.number;
        match chain.check(opened) {
            Err(ChainError::Old { .. }) => match self.lookup.batch_digest(&host.id, number) {
                Ok(Some(digest)) if digest == opened.digest => Ok(Accepted::Duplicate),
                Ok(Some(_)) => Err(ChainError::Fork { number }.into()),
                Ok(None) => Err(ChainError::Old { number }.into()),
                Err(error) => Err(LedgerError::Disk(error.to_string())),
            },
            checked => Ok(checked?),
        }
    }

    /// Appends a record, and its leaf to those that the tree gets after the sync.
    fn append(&mut self, entry: &LogEntry) -> Result<RecordIndex, LedgerError> {
        let record = entry.encode();
        let leaf = leaf_bytes(&record).map_err(|error| LedgerError::NoLeaf(error.to_string()))?;
        let index = self.log.append(&record).map_err(disk)?;
        self.leaves.push(leaf);
        Ok(index)
    }

    fn new_chain(&self) -> Chain {
        let mut chain = Chain::default();
        if self.known.damaged {
            chain.mark_damaged();
        }
        chain
    }

    /// Writes down who a host is, before its first batch.
    fn introduce(&mut self, host: &Host, chain: Chain, items: &mut Vec<Item>) -> Result<(), LedgerError> {
        let introduction = HostRecord {
            host_id: host.id.to_string(),
            name: host.name.clone(),
            public_key: host.key.as_bytes().to_vec(),
            certificate: host.certificate.clone(),
        };
        let record = self.append(&LogEntry::Host(introduction.clone()))?;
        items.push(Item { record, entry: ItemEntry::Host(introduction) });
        self.known.hosts.insert(host.id.clone(), KnownHost { key: host.key, chain });
        tracing::info!(host = %host.id, name = host.name, "first batch of a new host");
        Ok(())
    }

    fn count(&self, events: u64, kept: &Answer) {
        match kept {
            Ok(Kept::Stored) => {
                self.health.batches.add(1);
                self.health.events.add(events);
            }
            Ok(Kept::KnownAlready) => self.health.duplicates.add(1),
            Err(_) => {}
        }
    }
}

/// The record of a batch with all its events withheld; `None`: it has none, or is none.
fn without_events(record: &[u8]) -> Option<Vec<u8>> {
    let Ok(LogEntry::Batch(batch)) = LogEntry::decode(record) else { return None };
    batch::thin(&batch, |_| false).ok().map(|thinned| LogEntry::Batch(thinned).encode())
}

fn full() -> LedgerError {
    LedgerError::Disk("the disk is full".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn disk(error: RecordsError) -> LedgerError {
    LedgerError::Disk(error.to_string())
}

/// A stream that is gone needs no answer.
fn send(answer: oneshot::Sender<Answer>, kept: Answer) {
    let _ = answer.send(kept);
}

impl Submission {
    fn bytes(&self) -> usize {
        match &self.what {
            Submitted::Batch { signed, .. } => signed.body.len(),
            Submitted::Act { .. } | Submitted::Thin { .. } | Submitted::Rotate => 0,
        }
    }

    fn is_last(&self) -> bool {
        matches!(self.what, Submitted::Act { last: true, .. })
    }
}

fn take_group(first: Submission, receiver: &mut mpsc::Receiver<Submission>) -> Vec<Submission> {
    let mut bytes = first.bytes();
    let mut last = first.is_last();
    let mut group = vec![first];
    while group.len() < GROUP_BATCHES && bytes < GROUP_BYTES && !last {
        let Ok(next) = receiver.try_recv() else { break };
        bytes += next.bytes();
        last = next.is_last();
        group.push(next);
    }
    group
}
