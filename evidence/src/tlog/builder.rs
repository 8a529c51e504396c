//! The growing tree: from leaves to the bytes of tiles and bundles, and to roots.

use super::{
    note::Checkpoint,
    tiles::{TILE_WIDTH, Tiles, TreeError, append_to_bundle, bundle_path, tile_path},
};
use crate::{
    digest::Digest,
    log::MAX_LEAF_BYTES,
    merkle::{leaf_hash, node_hash},
};

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Path below the tree's directory.
    pub path: String,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

/// A leaf has more than [`MAX_LEAF_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a leaf of {0} bytes does not fit into the tree, which takes {MAX_LEAF_BYTES}")]
pub struct LongLeafError(pub usize);

/// The right edge of a tree, to which leaves are added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeBuilder {
    size: u64,
    /// Per level the hashes of the tile that is not full yet.
    edge: Vec<Vec<Digest>>,
    /// The bundle that is not full yet.
    bundle: Vec<u8>,
}

impl TreeBuilder {
    /// Takes up a tree where its files end.
    ///
    /// # Errors
    /// A file is missing, or they do not add up to the tree's root.
    pub fn resume(tiles: &Tiles, tree: &Checkpoint) -> Result<Self, TreeError> {
        let mut builder = Self { size: tree.size, ..Self::default() };
        let mut level = 0;
        while builder.size_at(level) > 0 {
            let (number, width) = builder.edge_of(level);
            builder.edge.push(if width > 0 { tiles.hashes(level, number, width)? } else { Vec::new() });
            level += 1;
        }
        let (number, width) = builder.edge_of(0);
        if width > 0 {
            for (leaf, hash) in tiles.leaves(number, width)?.iter().zip(&builder.edge[0]) {
                if leaf_hash(leaf) != *hash || append_to_bundle(&mut builder.bundle, leaf).is_none() {
                    return Err(tiles.altered());
                }
            }
        }
        if builder.root() == tree.root { Ok(builder) } else { Err(tiles.altered()) }
    }

    /// Adds a leaf; files that became full, and will never change again, are added to `full`.
    ///
    /// # Errors
    /// The leaf is too long, and nothing was added.
    pub fn push(&mut self, leaf: &[u8], full: &mut Vec<TreeFile>) -> Result<(), LongLeafError> {
        append_to_bundle(&mut self.bundle, leaf).ok_or(LongLeafError(leaf.len()))?;
        let (mut hash, mut level) = (leaf_hash(leaf), 0);
        loop {
            let (number, _) = self.edge_of(level);
            let index = usize::from(level);
            if self.edge.len() == index {
                self.edge.push(Vec::new());
            }
            self.edge[index].push(hash);
            if (self.edge[index].len() as u64) < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(&mut self.edge[index]);
            full.push(TreeFile { path: tile_path(level, number, TILE_WIDTH), bytes: concat(&hashes) });
            if level == 0 {
                let bytes = std::mem::take(&mut self.bundle);
                full.push(TreeFile { path: bundle_path(number, TILE_WIDTH), bytes });
            }
            hash = root_of(&hashes);
            level += 1;
        }
        self.size += 1;
        Ok(())
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves so far; SHA-256 of nothing for an empty tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut right: Option<Digest> = None;
        for hashes in &self.edge {
            let mut hashes = hashes.clone();
            hashes.extend(right);
            right = (!hashes.is_empty()).then(|| root_of(&hashes));
        }
        right.unwrap_or_else(|| Digest::of(&[]))
    }

    /// The files at the right edge, as they are at this size.
    #[must_use]
    pub fn partial(&self) -> Vec<TreeFile> {
        let mut files = Vec::new();
        for (level, hashes) in (0..).zip(&self.edge) {
            let (number, width) = self.edge_of(level);
            if width > 0 {
                files.push(TreeFile { path: tile_path(level, number, width), bytes: concat(hashes) });
                if level == 0 {
                    files.push(TreeFile { path: bundle_path(number, width), bytes: self.bundle.clone() });
                }
            }
        }
        files
    }

    /// Complete subtrees that a level's hashes stand for.
    fn size_at(&self, level: u8) -> u64 {
        self.size.checked_shr(8 * u32::from(level)).unwrap_or(0)
    }

    /// Number and width of a level's tile that is not full yet.
    fn edge_of(&self, level: u8) -> (u64, u64) {
        let size = self.size_at(level);
        (size / TILE_WIDTH, size % TILE_WIDTH)
    }
}

fn concat(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// RFC 6962 tree hash over roots of subtrees that are equally large, but for the last one, which may be smaller. Not
/// for none.
fn root_of(hashes: &[Digest]) -> Digest {
    match hashes {
        [] => Digest::of(&[]),
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}
