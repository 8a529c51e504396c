//! Segment files: their names, their frames.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Damage, RecordIndex, RecordsError, disk::Disk};

/// Bytes before each payload: length, place in its group, checksum.
pub(super) const HEADER_BYTES: u64 = 12;
const HEADER: usize = 12;
const NAME_DIGITS: usize = 20;
const EXTENSION: &str = ".seg";
/// What a segment is called while it is written anew.
const NEW_EXTENSION: &str = ".new";

/// A segment by name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: RecordIndex,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn in_directory(directory: &Path, first: RecordIndex) -> Self {
        Self { first, path: directory.join(format!("{first:020}{EXTENSION}", first = first.0)) }
    }

    /// Where its successor is written before it takes the segment's name.
    pub(super) fn successor(&self) -> PathBuf {
        self.path.with_extension(&NEW_EXTENSION[1..])
    }
}

/// The directory's segments, oldest first. Files of other names are not ours and left alone.
pub(super) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<Segment>, RecordsError> {
    let names = disk.list(directory).map_err(RecordsError::io("list", directory))?;
    let parsed = names.iter().filter_map(|name| parse_name(name, EXTENSION));
    let mut segments: Vec<Segment> = parsed.map(|first| Segment::in_directory(directory, first)).collect();
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Successors that a crash kept from taking over.
pub(super) fn unfinished_successors(disk: &dyn Disk, directory: &Path) -> Result<Vec<PathBuf>, RecordsError> {
    let names = disk.list(directory).map_err(RecordsError::io("list", directory))?;
    let left = names.iter().filter(|name| parse_name(name, NEW_EXTENSION).is_some());
    Ok(left.map(|name| directory.join(name)).collect())
}

fn parse_name(name: &str, extension: &str) -> Option<RecordIndex> {
    let digits = name.strip_suffix(extension)?;
    let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok().map(RecordIndex) } else { None }
}

/// The frame of a payload, whose length the caller has checked to fit `u32`, that stands `behind` bytes behind the
/// beginning of its group.
pub(super) fn frame(payload: &[u8], behind: u32) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&behind.to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub(super) enum Frame {
    Record {
        payload: Vec<u8>,
        /// Bytes between the beginning of its group and the frame: what stands before the group was synced before
        /// this frame was written.
        behind: u32,
    },
    End,
    Bad {
        damage: Damage,
        /// Payload length when the frame's bounds look right, so that one may look behind it.
        length: Option<u64>,
    },
}

/// Reads one frame; allocates at most `max` bytes.
pub(super) fn read_frame(reader: &mut impl Read, max: u32) -> io::Result<Frame> {
    let mut header = Vec::with_capacity(HEADER);
    reader.by_ref().take(HEADER_BYTES).read_to_end(&mut header)?;
    let Some((fields, sum)) = header.split_last_chunk::<4>().filter(|_| header.len() == HEADER) else {
        let damage = Damage::Unfinished;
        return Ok(if header.is_empty() { Frame::End } else { Frame::Bad { damage, length: None } });
    };
    let field = |at: usize| {
        fields.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let (length, behind) = (field(0), field(4));
    if length == 0 || length > max {
        return Ok(Frame::Bad { damage: Damage::Length, length: None });
    }
    let mut payload = Vec::new();
    reader.by_ref().take(u64::from(length)).read_to_end(&mut payload)?;
    if payload.len() as u64 != u64::from(length) {
        return Ok(Frame::Bad { damage: Damage::Unfinished, length: None });
    }
    if checksum(fields, &payload) != u32::from_le_bytes(*sum) {
        return Ok(Frame::Bad { damage: Damage::Checksum, length: Some(u64::from(length)) });
    }
    Ok(Frame::Record { payload, behind })
}
