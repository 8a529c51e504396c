//! What can be said about a record by itself: the expensive part, done for many records at a time.

use std::{
    collections::{BTreeMap, HashMap},
    thread,
};

use buildtrail_proto::v1::{CollectorEntry, SignedBatch};

use super::span::{Extent, Span};
use crate::{
    batch::{self, BatchError, OpenedBatch},
    key::HostPublicKey,
    log::{HostRecord, LogEntry, leaf_bytes},
    records::RecordIndex,
};

/// The keys of the hosts that were introduced so far, by host id.
pub(super) type Keys = HashMap<String, HostPublicKey>;

/// A record as it was read.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) index: RecordIndex,
    pub(super) payload: Vec<u8>,
}

/// A record after it was examined.
pub(super) struct Examined {
    pub(super) index: RecordIndex,
    /// What stands for it in the tree; `None`: nothing can.
    pub(super) leaf: Option<Vec<u8>>,
    pub(super) content: Content,
}

/// What a record holds.
pub(super) enum Content {
    Host(HostRecord),
    Batch(Box<Facts>),
    Collector(Box<CollectorEntry>),
    /// Why it proves nothing.
    Bad(String),
    /// A batch that its host cannot have sent like this: host id, number, why.
    BadBatch(String, u64, String),
}

/// What is kept of a batch that verified.
pub(super) struct Facts {
    /// Without its events.
    pub(super) opened: OpenedBatch,
    /// Events that are there and lie in the span.
    pub(super) events: u64,
    /// Of all events that are there.
    pub(super) extent: Extent,
    /// Of those in the span.
    pub(super) extent_in_span: Extent,
    pub(super) withheld: BTreeMap<String, u64>,
}

impl Facts {
    /// Opens a batch and looks at its events, one after the other: they are not kept.
    pub(super) fn of(batch: &SignedBatch, key: &HostPublicKey, span: &Span) -> Result<Self, BatchError> {
        let (mut extent, mut extent_in_span, mut events) = (Extent::default(), Extent::default(), 0);
        let mut kinds = Vec::new();
        let opened = batch::inspect(batch, key, |event| {
            // An event without a time belongs to every span.
            let holds = event.time.as_ref().is_none_or(|time| span.holds(time));
            events += u64::from(holds);
            kinds.push(event.kind());
            if let Some(time) = &event.time {
                extent.add(time);
                if holds {
                    extent_in_span.add(time);
                }
            }
        })?;
        let withheld = if opened.withheld.is_empty() {
            BTreeMap::new()
        } else {
            batch::counts_without(&opened.header, kinds.into_iter())
        };
        Ok(Self { opened, events, extent, extent_in_span, withheld })
    }
}

/// Examines records on several threads; the order stays.
pub(super) fn all(records: Vec<Raw>, keys: &Keys, span: &Span, threads: usize) -> Vec<Examined> {
    let share = records.len().div_ceil(threads.max(1)).max(1);
    let mut shares = Vec::new();
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        shares.push(records.by_ref().take(share).collect::<Vec<_>>());
    }
    let examine = |share: &[Raw]| share.iter().map(|raw| one(raw, keys, span)).collect::<Vec<_>>();
    let Some(own) = shares.pop() else { return Vec::new() };
    thread::scope(|scope| {
        let others: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || examine(&share))).collect();
        let own = examine(&own);
        let mut examined = Vec::new();
        for other in others {
            match other.join() {
                Ok(share) => examined.extend(share),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        examined.extend(own);
        examined
    })
}

fn one(raw: &Raw, keys: &Keys, span: &Span) -> Examined {
    let leaf = leaf_bytes(&raw.payload).ok();
    let content = match LogEntry::decode(&raw.payload) {
        // The tree covers a record's meaning; of its bytes there must not be two forms.
        Ok(entry) if entry.encode() != raw.payload => {
            Content::Bad("the record is written down in another way than the collector does".into())
        }
        Ok(LogEntry::Host(host)) => Content::Host(host),
        Ok(LogEntry::Collector(entry)) => Content::Collector(Box::new(entry)),
        Ok(LogEntry::Batch(batch)) => content_of(&batch, keys, span),
        Err(error) => Content::Bad(error.to_string()),
    };
    Examined { index: raw.index, leaf, content }
}

fn content_of(batch: &SignedBatch, keys: &Keys, span: &Span) -> Content {
    let header = match batch::decode_header(&batch.header) {
        Ok(header) => header,
        Err(error) => return Content::Bad(error.to_string()),
    };
    let Some(key) = keys.get(&header.host_id) else {
        return Content::Bad(format!(
            "a batch of host {}, whose key is not in the log before it",
            header.host_id
        ));
    };
    match Facts::of(batch, key, span) {
        Ok(facts) => Content::Batch(Box::new(facts)),
        Err(error) => Content::BadBatch(header.host_id, header.number, error.to_string()),
    }
}
