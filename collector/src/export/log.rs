//! The log's records, as they are on disk.

use std::path::Path;

use buildtrail_evidence::{
    records::{Entry, Limits, Quarantined, Reader, RecordIndex, RecordsError},
    tlog::tiles::TILE_WIDTH,
};
use buildtrail_proto::v1::LogRecord;
use tokio::sync::mpsc;
use tonic::Status;

use crate::query::Tree;

type Out = mpsc::Sender<Result<LogRecord, Status>>;

/// Sends the records from `first` up to `end`, damaged ones by the hashes that the tree remembers. Blocks; ends early
/// when the reader goes away.
pub(super) fn send(directory: &Path, tree: &Tree, first: u64, end: RecordIndex, out: &Out) {
    if let Err(error) = try_send(directory, tree, RecordIndex(first), end, out) {
        tracing::error!(%error, "an export failed");
        // A reader that is gone needs no reason.
        let _ = out.blocking_send(Err(Status::internal(
            "the log cannot be read; the collector's own log says more",
        )));
    }
}

fn try_send(
    directory: &Path,
    tree: &Tree,
    first: RecordIndex,
    end: RecordIndex,
    out: &Out,
) -> Result<(), RecordsError> {
    if first >= end {
        return Ok(());
    }
    for entry in Reader::up_to(directory, Limits::default().max_record_bytes, first, end)? {
        let gone = match entry? {
            Entry::Record { index, payload } => {
                let record = LogRecord { index: index.0, record: payload, ..Default::default() };
                out.blocking_send(Ok(record)).is_err()
            }
            Entry::Quarantined(range) => damaged(&range, tree, first, out),
        };
        if gone {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the reader went away.
fn damaged(range: &Quarantined, tree: &Tree, first: RecordIndex, out: &Out) -> bool {
    let size = tree.published.borrow().latest.checkpoint().size;
    (range.first.max(first).0..range.end.0).any(|index| {
        let number = index / TILE_WIDTH;
        let width = size.saturating_sub(number * TILE_WIDTH).min(TILE_WIDTH);
        let hashes = if index < size { tree.tiles.hashes(0, number, width).ok() } else { None };
        let place = usize::try_from(index % TILE_WIDTH).ok();
        let hash = hashes.zip(place).and_then(|(hashes, place)| hashes.get(place).copied());
        let leaf_hash = hash.map(|hash| hash.as_bytes().to_vec()).unwrap_or_default();
        let record = LogRecord { index, leaf_hash, damage: range.to_string(), ..Default::default() };
        out.blocking_send(Ok(record)).is_err()
    })
}
