//! What a full spool gives up: which events of which batches, and the note that makes sure that it is reported.
//!
//! The note `giving-up` is written before records are replaced and deleted once the loss events are on disk. Whoever
//! finds one after a crash reports what the crash kept from being reported, and nothing that did not happen.

use std::{cell::RefCell, collections::BTreeMap, io, path::Path};

use buildtrail_evidence::{
    batch::{self, decode_header},
    records::{Entry, Reader, RecordIndex, RecordsError},
};
use buildtrail_proto::v1::{AuditEvent, BatchBody, Loss, SignedBatch, audit_event::Body};
use prost::Message as _;

use super::{
    journal::Journal,
    loss::{Reason, Tally},
    small_file,
};

const NOTE: &str = "giving-up";

/// Smaller records for one segment, and what is no longer in them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) replaced: BTreeMap<RecordIndex, Vec<u8>>,
    /// By boot, in the order of the records.
    lost: Vec<Tally>,
}

impl Plan {
    /// Reads `records` and decides event by event.
    ///
    /// # Errors
    /// They cannot be read. Damage is passed over: what cannot be read cannot be given up.
    pub(super) fn make(
        records: Reader,
        gives_up: &dyn Fn(&AuditEvent) -> bool,
    ) -> Result<Self, RecordsError> {
        let mut plan = Self::default();
        for entry in records {
            if let Entry::Record { index, payload } = entry?
                && let Ok(batch) = SignedBatch::decode(&payload[..])
            {
                plan.add(index, &batch, gives_up);
            }
        }
        Ok(plan)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replaced.is_empty()
    }

    fn add(&mut self, index: RecordIndex, batch: &SignedBatch, gives_up: &dyn Fn(&AuditEvent) -> bool) {
        let going = RefCell::new(Vec::new());
        let thinned = batch::thin_events(batch, |event| {
            let goes = gives_up(event);
            if goes {
                going.borrow_mut().push(event.clone());
            }
            !goes
        });
        let going = going.into_inner();
        let (Ok(thinned), Some(boot_id)) = (thinned, going.first().map(|event| &event.boot_id)) else {
            return;
        };
        self.replaced.insert(index, thinned.encode_to_vec());
        if self.lost.last().is_none_or(|lost| lost.boot_id() != boot_id) {
            self.lost.push(Tally::default());
        }
        if let Some(tally) = self.lost.last_mut() {
            for event in &going {
                tally.add_numbered(event);
            }
        }
    }

    /// One loss event for each boot.
    pub(super) fn losses(&self, reason: Reason) -> Vec<AuditEvent> {
        self.lost.iter().map(|tally| tally.clone().into_event(reason)).collect()
    }
}

/// Writes down what is about to be given up, and what was and is not reported yet.
pub(super) fn write_note(directory: &Path, losses: &[AuditEvent]) -> io::Result<()> {
    let note =
        BatchBody { events: losses.iter().map(AuditEvent::encode_to_vec).collect(), withheld: Vec::new() };
    small_file::replace(&directory.join(NOTE), &note.encode_to_vec())
}

/// What the note says was reported.
pub(super) fn remove_note(directory: &Path) -> io::Result<()> {
    small_file::remove(&directory.join(NOTE))
}

/// Losses that happened before a crash and are not in the spool.
pub(super) fn unreported(directory: &Path, journal: &Journal) -> Vec<AuditEvent> {
    let note = small_file::read(&directory.join(NOTE)).unwrap_or_default();
    let events = BatchBody::decode(&note[..]).unwrap_or_default().events;
    let mut losses: Vec<AuditEvent> =
        events.iter().filter_map(|event| AuditEvent::decode(&event[..]).ok()).collect();
    if losses.is_empty() {
        return losses;
    }
    // A batch that is no longer here was delivered after the crash could not prevent that any more.
    let mut did_not_happen = vec![false; losses.len()];
    let mut reported = vec![false; losses.len()];
    for batch in journal.batches() {
        for (place, loss) in losses.iter().enumerate() {
            let Some(Body::Loss(loss)) = &loss.body else { continue };
            did_not_happen[place] |= still_holds_first(&batch, loss);
            reported[place] |= reports(&batch, loss);
        }
    }
    let mut verdicts = did_not_happen.into_iter().zip(reported);
    losses.retain(|_| verdicts.next().is_some_and(|(did_not, reported)| !did_not && !reported));
    losses
}

/// Whether the first event that the loss speaks of is in this batch.
fn still_holds_first(batch: &SignedBatch, loss: &Loss) -> bool {
    let Ok(header) = decode_header(&batch.header) else { return false };
    let Some(place) = loss.first_sequence.checked_sub(header.first_sequence) else { return false };
    if header.boot_id != loss.boot_id || loss.first_sequence > header.last_sequence {
        return false;
    }
    let Ok(body) = BatchBody::decode(&batch.body[..]) else { return false };
    body.withheld.iter().all(|withheld| u64::from(withheld.index) != place)
}

fn reports(batch: &SignedBatch, loss: &Loss) -> bool {
    let Ok(body) = BatchBody::decode(&batch.body[..]) else { return false };
    body.events.iter().any(|event| {
        let event = AuditEvent::decode(&event[..]).unwrap_or_default();
        matches!(&event.body, Some(Body::Loss(found)) if found == loss)
    })
}

/// How many events these losses speak of.
pub(super) fn count(losses: &[AuditEvent]) -> u64 {
    let count = |event: &AuditEvent| match &event.body {
        Some(Body::Loss(loss)) => loss.count,
        _ => 0,
    };
    losses.iter().map(count).sum()
}
