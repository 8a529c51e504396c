//! The one thread that writes the log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use buildtrail_evidence::{
    batch::OpenedBatch,
    chain::{Accepted, Chain, ChainError},
    log::{HostRecord, LogEntry},
    records::{RecordLog, RecordsError},
};
use buildtrail_proto::v1::SignedBatch;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Item, ItemEntry, Kept, KnownHost, KnownHosts, LedgerError, Submission};
use crate::{health::Health, peer::Host, store::Reader};

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
}

impl Writer {
    pub(super) fn run(mut self, mut receiver: mpsc::Receiver<Submission>) -> Result<(), LedgerError> {
        while let Some(first) = receiver.blocking_recv() {
            let group = take_group(first, &mut receiver);
            let items = self.commit(group)?;
            if !items.is_empty() && self.indexed.blocking_send(items).is_err() {
                // The index is gone, so the collector is stopping; the log has everything.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Stores a group, syncs once, answers all. An error means that the log can no longer be written.
    fn commit(&mut self, group: Vec<Submission>) -> Result<Vec<Item>, LedgerError> {
        let mut items = Vec::new();
        let mut answers = Vec::with_capacity(group.len());
        for submission in group {
            let Submission { host, signed, opened, answer } = submission;
            let events = opened.events.len() as u64;
            let kept = self.store(&host, signed, opened, &mut items);
            answers.push((answer, events, kept));
        }
        match self.log.sync() {
            Ok(end) => self.durable_end.store(end.0, Ordering::Release),
            Err(error) => {
                let failed = LedgerError::Disk(error.to_string());
                for (answer, ..) in answers {
                    send(answer, Err(failed.clone()));
                }
                return Err(failed);
            }
        }
        for (answer, events, kept) in answers {
            self.count(events, &kept);
            send(answer, kept);
        }
        Ok(items)
    }

    fn store(
        &mut self,
        host: &Host,
        signed: SignedBatch,
        opened: OpenedBatch,
        items: &mut Vec<Item>,
    ) -> Answer {
        if let Some(known) = self.known.hosts.get(&host.id) {
            if known.key != host.key {
                return Err(LedgerError::ForeignKey);
            }
            if self.check(&known.chain, host, &opened)? == Accepted::Duplicate {
                return Ok(Kept::KnownAlready);
            }
        } else {
            let chain = self.new_chain();
            self.check(&chain, host, &opened)?;
            self.introduce(host, chain, items)?;
        }
        let record = self.log.append(&LogEntry::Batch(signed).encode()).map_err(disk)?;
        if let Some(known) = self.known.hosts.get_mut(&host.id) {
            known.chain.advance(&opened);
        }
        items.push(Item { record, entry: ItemEntry::Batch(Box::new(opened)) });
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
        let record = self.log.append(&LogEntry::Host(introduction.clone()).encode()).map_err(disk)?;
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

#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn disk(error: RecordsError) -> LedgerError {
    LedgerError::Disk(error.to_string())
}

/// A stream that is gone needs no answer.
fn send(answer: oneshot::Sender<Answer>, kept: Answer) {
    let _ = answer.send(kept);
}

fn take_group(first: Submission, receiver: &mut mpsc::Receiver<Submission>) -> Vec<Submission> {
    let mut bytes = first.signed.body.len();
    let mut group = vec![first];
    while group.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
        let Ok(next) = receiver.try_recv() else { break };
        bytes += next.signed.body.len();
        group.push(next);
    }
    group
}
