//! The tree on disk: hash tiles and entry bundles (C2SP tlog-tiles, height 8) below one directory.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use tlog_tiles::{Hash, HashReader, Tile};

use super::{
    note::Checkpoint,
    proof::{check_consistency, check_inclusion},
};
use crate::{digest::Digest, log::MAX_LEAF_BYTES};

/// Hashes in a full tile, and leaves in a full bundle.
pub const TILE_WIDTH: u64 = 256;
const HEIGHT: u8 = 8;
const HASH_BYTES: usize = 32;
/// Longest entry bundle.
const MAX_BUNDLE_BYTES: u64 = TILE_WIDTH * (2 + MAX_LEAF_BYTES as u64);

/// The tree on disk cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file is missing or cannot be read.
    #[error("cannot read {}: {source}; the tree can be rebuilt from the log: start the collector on it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is there does not add up to the signed root.
    #[error("the tree's files below {} do not add up to the signed root: they were altered or damaged", .0.display())]
    Altered(PathBuf),
    /// The question is beyond the tree.
    #[error("the tree has {size} leaves, so there is no number {asked} in it")]
    Beyond {
        /// Leaves.
        size: u64,
        /// What was asked for.
        asked: u64,
    },
}

/// A directory with `tile/…` in it.
#[derive(Debug, Clone)]
pub struct Tiles {
    directory: PathBuf,
}

/// Path of a hash tile below the tree's directory: `tile/<level>/<number>[.p/<width>]`.
///
/// `level` below 64 and `width` from 1 to 256 are the caller's promise; other values give a path that no file has.
#[must_use]
pub fn tile_path(level: u8, number: u64, width: u64) -> String {
    format!("tile/{level}/{}", number_path(number, width))
}

/// Path of an entry bundle below the tree's directory: `tile/entries/<number>[.p/<width>]`.
#[must_use]
pub fn bundle_path(number: u64, width: u64) -> String {
    format!("tile/entries/{}", number_path(number, width))
}

fn number_path(number: u64, width: u64) -> String {
    let mut path = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    if width < TILE_WIDTH { format!("{path}.p/{width}") } else { path }
}

impl Tiles {
    /// The tree below `directory`; nothing is read yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The proof that leaf `index` is in the tree; it was checked against the tree's root.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn inclusion(&self, tree: &Checkpoint, index: u64) -> Result<Vec<Digest>, TreeError> {
        if index >= tree.size {
            return Err(TreeError::Beyond { size: tree.size, asked: index });
        }
        let path = self.ask(tree.size, |hashes| tlog_tiles::prove_record(tree.size, index, hashes))?;
        let number = index / TILE_WIDTH;
        let leaves = self.hashes(0, number, (tree.size - number * TILE_WIDTH).min(TILE_WIDTH))?;
        let leaf = leaves.get(usize::try_from(index % TILE_WIDTH).unwrap_or(usize::MAX));
        let proven = leaf.is_some_and(|leaf| check_inclusion(*leaf, index, &path, tree).is_ok());
        if proven { Ok(path) } else { Err(self.altered()) }
    }

    /// The proof that the tree of `old_size` leaves is the beginning of the tree, and that tree's root; checked against
    /// the tree's root. The proof is empty for the empty tree.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn consistency(&self, tree: &Checkpoint, old_size: u64) -> Result<(Vec<Digest>, Digest), TreeError> {
        if old_size > tree.size {
            return Err(TreeError::Beyond { size: tree.size, asked: old_size });
        }
        if old_size == 0 {
            return Ok((Vec::new(), Digest::of(&[])));
        }
        let path = self.ask(tree.size, |hashes| tlog_tiles::prove_tree(tree.size, old_size, hashes))?;
        let root = self.ask(tree.size, |hashes| Ok(vec![tlog_tiles::tree_hash(old_size, hashes)?]))?;
        match root.first() {
            Some(root) if check_consistency(old_size, *root, &path, tree).is_ok() => Ok((path, *root)),
            _ => Err(self.altered()),
        }
    }

    /// The proof that the tree of `old_size` leaves is the beginning of that of `new_size`, both of which `tree` begins
    /// with; and the two roots, old and new.
    ///
    /// # Errors
    /// See [`TreeError`].
    pub fn consistency_between(
        &self,
        tree: &Checkpoint,
        old_size: u64,
        new_size: u64,
    ) -> Result<(Vec<Digest>, Digest, Digest), TreeError> {
        if old_size > new_size {
            return Err(TreeError::Beyond { size: new_size, asked: old_size });
        }
        let (_, old_root) = self.consistency(tree, old_size)?;
        let (_, new_root) = self.consistency(tree, new_size)?;
        if old_size == 0 {
            return Ok((Vec::new(), old_root, new_root));
        }
        let path = self.ask(tree.size, |hashes| tlog_tiles::prove_tree(new_size, old_size, hashes))?;
        let new = Checkpoint { origin: String::new(), size: new_size, root: new_root };
        match check_consistency(old_size, old_root, &path, &new) {
            Ok(()) => Ok((path, old_root, new_root)),
            Err(_) => Err(self.altered()),
        }
    }

    pub(super) fn altered(&self) -> TreeError {
        TreeError::Altered(self.directory.clone())
    }

    /// Answers from the tiles of a tree of `size` leaves; the answer is not checked against any root.
    fn ask(
        &self,
        size: u64,
        question: impl FnOnce(&Files<'_>) -> Result<Vec<Hash>, tlog_tiles::Error>,
    ) -> Result<Vec<Digest>, TreeError> {
        let files = Files { tiles: self, size, failed: std::cell::Cell::default() };
        match question(&files) {
            Ok(hashes) => Ok(hashes.into_iter().map(|hash| Digest(hash.0)).collect()),
            Err(_) => Err(files.failed.take().unwrap_or_else(|| self.altered())),
        }
    }

    /// The hashes of a tile, of which at least `width` must be there; a full tile serves for a partial one. Not checked
    /// against any root.
    ///
    /// # Errors
    /// [`TreeError::Read`] or, for a file of another length, [`TreeError::Altered`].
    pub fn hashes(&self, level: u8, number: u64, width: u64) -> Result<Vec<Digest>, TreeError> {
        let wanted = usize::try_from(width).unwrap_or(usize::MAX).saturating_mul(HASH_BYTES);
        let bytes =
            self.read(|width| tile_path(level, number, width), width, TILE_WIDTH * HASH_BYTES as u64)?;
        let hashes = bytes.get(..wanted).ok_or_else(|| self.altered())?;
        Ok(hashes.chunks_exact(HASH_BYTES).filter_map(|hash| Digest::try_from(hash).ok()).collect())
    }

    /// The leaves of a bundle, of which at least `width` must be there. Not checked against any root.
    ///
    /// # Errors
    /// [`TreeError::Read`] or, for a file that does not parse, [`TreeError::Altered`].
    pub fn leaves(&self, number: u64, width: u64) -> Result<Vec<Vec<u8>>, TreeError> {
        let bytes = self.read(|width| bundle_path(number, width), width, MAX_BUNDLE_BYTES)?;
        parse_bundle(&bytes, width).ok_or_else(|| self.altered())
    }

    /// Reads a partial file or, once that was replaced, the full one.
    fn read(&self, path: impl Fn(u64) -> String, width: u64, max: u64) -> Result<Vec<u8>, TreeError> {
        let first = self.directory.join(path(width));
        match read_bounded(&first, max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && width < TILE_WIDTH => {
                let full = self.directory.join(path(TILE_WIDTH));
                read_bounded(&full, max).map_err(|source| TreeError::Read { path: first, source })
            }
            read => read.map_err(|source| TreeError::Read { path: first, source }),
        }
    }
}

fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first `width` leaves of an entry bundle.
fn parse_bundle(mut bytes: &[u8], width: u64) -> Option<Vec<Vec<u8>>> {
    let mut leaves = Vec::new();
    for _ in 0..width {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        leaves.push(rest.get(..length)?.to_vec());
        bytes = &rest[length..];
    }
    Some(leaves)
}

/// Appends a leaf to an entry bundle; `None`: it is longer than a leaf can be.
#[must_use]
pub fn append_to_bundle(bundle: &mut Vec<u8>, leaf: &[u8]) -> Option<()> {
    bundle.extend_from_slice(&u16::try_from(leaf.len()).ok()?.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Some(())
}

/// How the tree's arithmetic reads hashes; keeps the failure, which its own error cannot carry.
///
/// The crate's own reader of tiles is not used: it leaves out checking some tiles against their parents. Answers are
/// checked as a whole instead.
struct Files<'a> {
    tiles: &'a Tiles,
    size: u64,
    failed: std::cell::Cell<Option<TreeError>>,
}

impl HashReader for Files<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let read = |index: &u64| {
            let within = Tile::from_index(HEIGHT, *index);
            let tile = within.parent(0, self.size).ok_or(tlog_tiles::Error::IndexesNotInTree)?;
            let hashes = self.tiles.hashes(tile.level(), tile.level_index(), u64::from(tile.width()));
            let hashes = hashes.map_err(|error| {
                self.failed.set(Some(error));
                tlog_tiles::Error::InvalidTile
            })?;
            let data: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
            tile.hash_at_index(&data, *index)
        };
        indexes.iter().map(read).collect()
    }
}
