//! The tree over the log's records, built anew and compared with what stands elsewhere: checkpoints, and the files of
//! the tree on disk.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    digest::Digest,
    merkle::{Frontier, leaf_hash},
    records::RecordIndex,
    tlog::tiles::{TILE_WIDTH, append_to_bundle, bundle_path, tile_path},
};

/// A tree that the log's records must begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Leaves.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// Who says so, as the subject of a sentence: "the checkpoint in …".
    pub source: String,
}

/// Builds the tree, record by record.
pub(super) struct TreeWalk {
    /// `None`: a record is missing, and nothing remembers its leaf.
    frontier: Option<Frontier>,
    /// By size, largest first.
    expected: Vec<Expected>,
    files: Option<Files>,
    problems: Vec<String>,
}

impl TreeWalk {
    pub(super) fn new(mut expected: Vec<Expected>, directory: Option<&Path>) -> Self {
        expected.sort_by_key(|expected| std::cmp::Reverse(expected.size));
        let newest = expected.first().map_or(0, |expected| expected.size);
        let files = directory.map(|directory| Files::new(directory, newest));
        let mut walk = Self { frontier: Some(Frontier::default()), expected, files, problems: Vec::new() };
        walk.compare();
        walk
    }

    /// Leaves so far.
    pub(super) fn size(&self) -> Option<u64> {
        self.frontier.as_ref().map(Frontier::size)
    }

    /// Adds a record by its leaf. A record that cannot be read keeps the place that the tree's files remember.
    pub(super) fn push(&mut self, index: RecordIndex, leaf: Option<&[u8]>) {
        let hash = match leaf {
            Some(leaf) => Some(leaf_hash(leaf)),
            None => self.files.as_ref().and_then(|files| files.remembered(index)),
        };
        self.push_hash(hash, leaf);
    }

    /// As [`Self::push`], of a record whose leaf's hash is known, or is not.
    pub(super) fn push_hash(&mut self, hash: Option<Digest>, leaf: Option<&[u8]>) {
        let (Some(frontier), Some(hash)) = (&mut self.frontier, hash) else {
            self.frontier = None;
            return;
        };
        frontier.push(hash);
        if let Some(files) = &mut self.files {
            files.push(hash, leaf, &mut self.problems);
        }
        self.compare();
    }

    fn compare(&mut self) {
        let Some(frontier) = &self.frontier else { return };
        while let Some(expected) = self.expected.pop_if(|expected| expected.size == frontier.size()) {
            if expected.root != frontier.root() {
                self.problems.push(format!(
                    "The first {} records are not those of {}: one of them was altered, exchanged, put in or taken \
                     out, or another history was put in the place of this one.",
                    expected.size, expected.source
                ));
            }
        }
    }

    /// What is wrong with the tree.
    pub(super) fn finish(mut self) -> Vec<String> {
        let Some(frontier) = &self.frontier else {
            self.problems.push(
                "Records are missing and nothing remembers their hashes: the log cannot be compared with its checkpoint."
                    .into(),
            );
            return self.problems;
        };
        for expected in self.expected.iter().rev() {
            self.problems.push(format!(
                "The log ends with record {}, but {} covers {} records: the end was cut off, or an older state was \
                 put back.",
                i128::from(frontier.size()) - 1,
                expected.source,
                expected.size
            ));
        }
        if let Some(files) = self.files {
            files.finish(&mut self.problems);
        }
        self.problems
    }
}

/// Compares the tree's files with what they must hold.
struct Files {
    directory: PathBuf,
    /// Size of the newest checkpoint: up to here the files must be there.
    required: u64,
    size: u64,
    /// Hashes of each level's unfinished tile.
    levels: Vec<Vec<Digest>>,
    /// Tiles finished per level.
    finished: Vec<u64>,
    /// The unfinished bundle; `None` where a leaf is known by its hash alone.
    bundle: Option<Vec<u8>>,
    /// Where the unfinished bundle's leaves end.
    bundle_ends: Vec<usize>,
    known: HashSet<PathBuf>,
}

impl Files {
    fn new(directory: &Path, required: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            required,
            size: 0,
            levels: Vec::new(),
            finished: Vec::new(),
            bundle: Some(Vec::new()),
            bundle_ends: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// The hash that a tile holds for a record.
    fn remembered(&self, index: RecordIndex) -> Option<Digest> {
        let (number, at) = (index.0 / TILE_WIDTH, usize::try_from(index.0 % TILE_WIDTH).ok()?);
        let widths = (index.0 % TILE_WIDTH + 1..=TILE_WIDTH).rev();
        let read = |width| fs::read(self.directory.join(tile_path(0, number, width))).ok();
        let tile = widths.into_iter().find_map(read)?;
        Digest::try_from(tile.get(at * 32..at * 32 + 32)?).ok()
    }

    fn push(&mut self, hash: Digest, leaf: Option<&[u8]>, problems: &mut Vec<String>) {
        self.size += 1;
        let appended = match (&mut self.bundle, leaf) {
            (Some(bundle), Some(leaf)) => append_to_bundle(bundle, leaf).map(|()| bundle.len()),
            _ => None,
        };
        match appended {
            Some(end) => self.bundle_ends.push(end),
            None => self.bundle = None,
        }
        let (mut level, mut node) = (0, hash);
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
                self.finished.push(0);
            }
            self.levels[level].push(node);
            if self.levels[level].len() as u64 != TILE_WIDTH {
                return;
            }
            self.check_tile(level, problems);
            let hashes = std::mem::take(&mut self.levels[level]);
            self.finished[level] += 1;
            let mut subtree = Frontier::default();
            for hash in hashes {
                subtree.push(hash);
            }
            node = subtree.root();
            level += 1;
        }
    }

    /// Compares every file that holds a part of the tile that stands at `level` now.
    fn check_tile(&mut self, level: usize, problems: &mut Vec<String>) {
        let (hashes, number) = (&self.levels[level], self.finished[level]);
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        let Ok(level_name) = u8::try_from(level) else { return };
        let leaves_per_hash = TILE_WIDTH.checked_pow(u32::from(level_name)).unwrap_or(u64::MAX);
        let required = (self.required / leaves_per_hash).saturating_sub(number * TILE_WIDTH).min(TILE_WIDTH);
        let mut found_required = required == 0;
        for width in 1..=hashes.len() as u64 {
            let path = PathBuf::from(tile_path(level_name, number, width));
            let Ok(found) = fs::read(self.directory.join(&path)) else { continue };
            found_required |= width >= required;
            let wanted = usize::try_from(width).map_or(&bytes[..], |width| &bytes[..width * 32]);
            if found != wanted {
                problems.push(format!(
                    "The tree's file {} does not hold {}.",
                    path.display(),
                    "the hashes of the log's records"
                ));
            }
            self.known.insert(path);
        }
        if !found_required {
            let path = tile_path(level_name, number, required);
            problems.push(format!("The tree's file {path} is missing."));
        }
        if level == 0 {
            self.check_bundle(number, required, problems);
        }
    }

    fn check_bundle(&mut self, number: u64, required: u64, problems: &mut Vec<String>) {
        let mut found_required = required == 0;
        for width in 1..=self.levels[0].len() as u64 {
            let path = PathBuf::from(bundle_path(number, width));
            let Ok(found) = fs::read(self.directory.join(&path)) else { continue };
            found_required |= width >= required;
            let end = usize::try_from(width - 1).ok().and_then(|at| self.bundle_ends.get(at));
            let wanted = self.bundle.as_ref().zip(end).and_then(|(bundle, end)| bundle.get(..*end));
            if wanted.is_some_and(|wanted| wanted != found) {
                problems.push(format!("The tree's file {} does not hold the log's leaves.", path.display()));
            }
            self.known.insert(path);
        }
        if !found_required {
            problems.push(format!("The tree's file {} is missing.", bundle_path(number, required)));
        }
        self.bundle = Some(Vec::new());
        self.bundle_ends.clear();
    }

    fn finish(mut self, problems: &mut Vec<String>) {
        for level in 0..self.levels.len() {
            if !self.levels[level].is_empty() {
                self.check_tile(level, problems);
            }
        }
        let mut strangers = Vec::new();
        list(&self.directory, Path::new("tile"), &mut |path| {
            if !self.known.contains(path) {
                strangers.push(path.display().to_string());
            }
        });
        strangers.sort();
        problems.extend(
            strangers
                .into_iter()
                .map(|path| format!("The tree's file {path} belongs to no tree of this log.")),
        );
    }
}

/// Every file below `relative`.
fn list(directory: &Path, relative: &Path, found: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory.join(relative)) else { return };
    for entry in entries.flatten() {
        let path = relative.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(directory, &path, found);
        } else {
            found(&path);
        }
    }
}
