//! Taking up the tree at start: what was signed must still be there.

use std::path::Path;

use buildtrail_evidence::{
    log::leaf_bytes,
    records::{Entry, RecordIndex, RecordLog},
    tlog::{
        NO_RECORD_LEAF,
        builder::{TreeBuilder, TreeFile},
        note::{Checkpoint, NoteKey, SignedCheckpoint},
        tiles::{TILE_WIDTH, Tiles},
    },
};

use super::{TreeError, files};

/// Full files that are kept in memory before they are written.
const PENDING: usize = 1024;

/// The newest checkpoint on disk, if there is one.
pub(super) fn signed(path: &Path, log: &NoteKey) -> Result<Option<SignedCheckpoint>, TreeError> {
    let wrong = |source| TreeError::Checkpoint { path: path.to_owned(), source };
    let note = files::read(path)?;
    note.map(|note| SignedCheckpoint::open(&note, log).map_err(wrong)).transpose()
}

/// The tree of `tree.size` leaves from its files or, where these are damaged, from the log.
pub(super) fn take_up(
    directory: &Path,
    log: &RecordLog,
    tree: &Checkpoint,
) -> Result<TreeBuilder, TreeError> {
    let tiles = Tiles::new(directory);
    match TreeBuilder::resume(&tiles, tree) {
        Ok(builder) => {
            compare_end(&tiles, log, tree)?;
            Ok(builder)
        }
        Err(error) => {
            tracing::error!(%error, "the tree's files are damaged: they are made anew from the log");
            rebuild(directory, log, tree)
        }
    }
}

/// Makes all files anew. The log must lead to the signed root.
fn rebuild(directory: &Path, log: &RecordLog, tree: &Checkpoint) -> Result<TreeBuilder, TreeError> {
    let mut builder = TreeBuilder::default();
    let mut full = Vec::new();
    extend(&mut builder, &mut full, directory, log, RecordIndex(tree.size))?;
    if builder.root() != tree.root {
        return Err(TreeError::Replaced(RecordIndex(tree.size)));
    }
    full.extend(builder.partial());
    files::write_all(directory, &full)?;
    Ok(builder)
}

/// The last records of the log must be the last leaves of the tree.
fn compare_end(tiles: &Tiles, log: &RecordLog, tree: &Checkpoint) -> Result<(), TreeError> {
    let Some(last) = tree.size.checked_sub(1) else { return Ok(()) };
    let (number, width) = (last / TILE_WIDTH, last % TILE_WIDTH + 1);
    let first = number * TILE_WIDTH;
    let leaves = tiles.leaves(number, width)?;
    for entry in log.reader(RecordIndex(first))? {
        let Entry::Record { index, payload } = entry? else { continue };
        let Some(leaf) = usize::try_from(index.0 - first).ok().and_then(|place| leaves.get(place)) else {
            break;
        };
        if leaf_or_none(index, &payload) != *leaf {
            return Err(TreeError::Replaced(index));
        }
    }
    Ok(())
}

/// Adds the log's records up to `end` to the tree. Numbers without a record get their own leaf.
pub(super) fn extend(
    builder: &mut TreeBuilder,
    full: &mut Vec<TreeFile>,
    directory: &Path,
    log: &RecordLog,
    end: RecordIndex,
) -> Result<(), TreeError> {
    for entry in log.reader(RecordIndex(builder.size()))? {
        match entry? {
            Entry::Record { index, .. } if index >= end => break,
            Entry::Record { index, payload } => {
                fill(builder, full, index);
                push(builder, &leaf_or_none(index, &payload), full);
            }
            Entry::Quarantined(range) => fill(builder, full, range.end.min(end)),
        }
        if full.len() >= PENDING {
            files::write_all(directory, full)?;
            full.clear();
        }
    }
    fill(builder, full, end);
    Ok(())
}

/// Adds a leaf; what does not fit into the tree is there as a number without a record.
pub(super) fn push(builder: &mut TreeBuilder, leaf: &[u8], full: &mut Vec<TreeFile>) {
    if builder.push(leaf, full).is_err() {
        // One byte always fits.
        let _ = builder.push(&NO_RECORD_LEAF, full);
    }
}

fn fill(builder: &mut TreeBuilder, full: &mut Vec<TreeFile>, end: RecordIndex) {
    while builder.size() < end.0 {
        push(builder, &NO_RECORD_LEAF, full);
    }
}

/// What this build does not understand, and a writer of it would not have written, has no leaf.
fn leaf_or_none(index: RecordIndex, record: &[u8]) -> Vec<u8> {
    leaf_bytes(record).unwrap_or_else(|error| {
        tracing::error!(record = %index, %error, "has no leaf in the tree");
        NO_RECORD_LEAF.to_vec()
    })
}
