//! One event's place in its batch.

use buildtrail_proto::v1::SignedBatch;

use super::{BatchError, body, body::Slot, decode_header, event_count};
use crate::{
    digest::Digest,
    merkle::path,
    tlog::{
        note::Checkpoint,
        proof::{ProofError, check_inclusion},
    },
};

/// An event's hash and the path from there to the root that the host signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPath {
    /// The encoded event; `None`: only its hash is there.
    pub event: Option<Vec<u8>>,
    /// Its leaf hash.
    pub leaf_hash: Digest,
    /// From the leaf's sibling up.
    pub path: Vec<Digest>,
    /// Events in the batch.
    pub events: usize,
}

/// Shows where in `batch` the event at `position` (from 0) stands; `None`: it has fewer events.
///
/// # Errors
/// The batch is malformed. Signature and root are not checked.
pub fn event_path(batch: &SignedBatch, position: usize) -> Result<Option<EventPath>, BatchError> {
    let header = decode_header(&batch.header)?;
    let slots = body::parse(&batch.body, event_count(&header))?;
    let Some(slot) = slots.get(position) else { return Ok(None) };
    let hashes: Vec<Digest> = slots.iter().map(Slot::leaf_hash).collect();
    let event = match slot {
        Slot::Event(encoded) => Some(encoded.to_vec()),
        Slot::Withheld(_) => None,
    };
    let path = path(&hashes, position);
    Ok(Some(EventPath { event, leaf_hash: hashes[position], path, events: hashes.len() }))
}

/// Checks that the event with this leaf hash is at `position` among the `events` that have `events_root`.
///
/// # Errors
/// [`ProofError::Wrong`].
pub fn check_event_path(
    leaf_hash: Digest,
    position: usize,
    events: usize,
    path: &[Digest],
    events_root: Digest,
) -> Result<(), ProofError> {
    let tree = Checkpoint { origin: String::new(), size: events as u64, root: events_root };
    check_inclusion(leaf_hash, position as u64, path, &tree)
}
