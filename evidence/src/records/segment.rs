//! Segment files: their names, their frames.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Damage, RecordIndex, RecordsError};

/// Bytes before each payload: length and checksum.
pub(super) const HEADER_BYTES: u64 = 8;
const HEADER: usize = 8;
const NAME_DIGITS: usize = 20;
const EXTENSION: &str = ".seg";

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
}

/// The directory's segments, oldest first. Files of other names are not ours and left alone.
pub(super) fn list(directory: &Path) -> Result<Vec<Segment>, RecordsError> {
    let failed = || RecordsError::io("list", directory);
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if let Some(first) = entry.file_name().to_str().and_then(parse_name) {
            segments.push(Segment { first, path: entry.path() });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

fn parse_name(name: &str) -> Option<RecordIndex> {
    let digits = name.strip_suffix(EXTENSION)?;
    let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok().map(RecordIndex) } else { None }
}

/// The frame of a payload, whose length the caller has checked to fit `u32`.
pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(length, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub(super) enum Frame {
    Record(Vec<u8>),
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
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header[..] else {
        let damage = Damage::Unfinished;
        return Ok(if header.is_empty() { Frame::End } else { Frame::Bad { damage, length: None } });
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length == 0 || length > max {
        return Ok(Frame::Bad { damage: Damage::Length, length: None });
    }
    let mut payload = Vec::new();
    reader.by_ref().take(u64::from(length)).read_to_end(&mut payload)?;
    if payload.len() as u64 != u64::from(length) {
        return Ok(Frame::Bad { damage: Damage::Unfinished, length: None });
    }
    if checksum([l0, l1, l2, l3], &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(Frame::Bad { damage: Damage::Checksum, length: Some(u64::from(length)) });
    }
    Ok(Frame::Record(payload))
}
