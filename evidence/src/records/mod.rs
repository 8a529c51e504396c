//! Append-only record files: the agent's spool and the collector's log are both kept in these.
//!
//! In: byte records. Out: the same records in order, after any crash; damage as named, counted ranges.
//! A directory holds segments `<20-digit index of the first record>.seg`; a segment is a row of frames
//! `length u32 LE, place u32 LE, crc32c u32 LE, payload`, the checksum covering everything else. *Place* is how many bytes
//! the frame stands behind the beginning of its *group*: the frames written since the last sync. Records are numbered
//! from 0. Must never panic on damage, skip it silently, or cut off bytes that were ever promised.
//!
//! Why this survives a crash at any byte (`model` runs it on a disk that forgets, tears and reorders):
//! - A frame is written at the end and never changed. [`RecordLog::sync`] returns after `fdatasync`, so every record
//!   before [`RecordLog::durable_end`] is on disk, and nothing after it was promised to anyone.
//! - A new segment is begun only after the old one was synced, and its directory entry is synced before anything in it
//!   counts as durable, the names of the directories above at open. So only the last segment can have an unfinished end.
//! - Of an unsynced group any part may survive a power cut, in any order. A bad frame is therefore cut off with all
//!   behind it, unless a frame behind it says by its place that the bad one had been synced before: then it was damaged
//!   later, the bytes stay, a new segment is begun behind them and the range is reported.
//! - A zero-filled end (file length written, data not) does not parse: no record is empty, and the checksum covers the
//!   length.
//! - After a failed `fdatasync` the kernel may have dropped what it could not write and show it nevertheless, so the log
//!   refuses all further work until it is opened again; opening writes the last group once more before it promises it.
//!   A failed append (disk full) is cut back and may be retried.
//! - Removal deletes whole segments, oldest first, and syncs the directory after each: what is left is always one range.
//! - Rewriting a segment writes and syncs a new file, renames it over the old one and syncs the directory.

mod disk;
mod reader;
mod recovery;
mod segment;
mod writer;

use std::{fmt, io, path::PathBuf};

pub use reader::{Entry, Reader};
pub use recovery::{Recovery, TornTail};
pub use writer::{ClosedSegment, RecordLog};

/// Position of a record: 0, 1, 2, … over all segments, for the life of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecordIndex(pub u64);

impl RecordIndex {
    /// The following position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RecordIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bounds of a record directory. Writers and readers of one directory use the same `max_record_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest record, in bytes. Anything longer on disk is damage.
    pub max_record_bytes: u32,
    /// A segment that has reached this size, in bytes, gets no further record.
    pub segment_bytes: u64,
}

impl Default for Limits {
    /// 16 MiB records, 64 MiB segments.
    fn default() -> Self {
        Self { max_record_bytes: 16 << 20, segment_bytes: 64 << 20 }
    }
}

/// Records that cannot be read: from `first` up to, not including, `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// First record that is affected.
    pub first: RecordIndex,
    /// First record after the damage. Where damage hides how many records there were, this is an upper bound.
    pub end: RecordIndex,
    /// The damaged file.
    pub segment: PathBuf,
    /// Where in it the damage begins, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// What is wrong with a range of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The file ends in the middle of a record.
    Unfinished,
    /// A record's length is zero or beyond the bound.
    Length,
    /// A record's checksum does not match.
    Checksum,
    /// A whole segment, or the end of one, is not there.
    Missing,
    /// A segment repeats indexes of the one before.
    Overlap,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "the file ends in the middle of a record",
            Self::Length => "a record's length is impossible",
            Self::Checksum => "a record's checksum does not match",
            Self::Missing => "records are missing",
            Self::Overlap => "the next file repeats record numbers",
        })
    }
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.segment.file_name().unwrap_or_default().to_string_lossy();
        let count = self.end.0.saturating_sub(self.first.0);
        write!(
            f,
            "{} at byte {} of {name}: records from {} on, {count} at most",
            self.damage, self.offset, self.first
        )
    }
}

/// A record directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the disk, its free space and the permissions", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process has the directory open for writing.
    #[error("{} is in use by another process; stop that one first or choose another directory", .0.display())]
    InUse(PathBuf),
    /// Empty or over the bound.
    #[error("a record of {bytes} bytes cannot be kept: 1 to {max} are allowed")]
    Size {
        /// The record's length.
        bytes: usize,
        /// The bound.
        max: u32,
    },
    /// A segment was asked for that is not there, or still written.
    #[error("no closed segment begins with record {0}")]
    NoSegment(RecordIndex),
    /// An earlier write or sync failed in a way that leaves the file's state unknown.
    #[error("an earlier write to {} failed; restart to check the files and go on", .0.display())]
    Failed(PathBuf),
}

impl RecordsError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
