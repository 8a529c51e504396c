//! What the last segment holds after a crash: where its good records end, and what to do with the rest.

use std::{
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use super::{
    Damage, Quarantined, RecordIndex, RecordsError,
    disk::{Disk, DiskFile, Open},
    segment::{Frame, HEADER_BYTES, Segment, read_frame},
};

/// How many bytes may be checksummed in search of good records behind a bad one.
const SEARCH_BUDGET: u64 = 1 << 30;

/// What opening a record directory found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// An unfinished end that was cut off the last segment.
    pub torn_tail: Option<TornTail>,
    /// Damage inside the last segment. Damage in older segments is reported when they are read.
    pub quarantined: Vec<Quarantined>,
}

impl Recovery {
    /// Nothing was cut off and nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn_tail.is_none() && self.quarantined.is_empty()
    }
}

/// Bytes that were cut off the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub segment: PathBuf,
    /// Its length now.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// The index that the next record will have.
    pub index: RecordIndex,
}

/// The last segment, walked to its end.
pub(super) struct Scan {
    /// Index behind the last record.
    pub(super) end: RecordIndex,
    /// Bytes from the start that parse, skipped bad records included.
    pub(super) good_bytes: u64,
    pub(super) file_bytes: u64,
    /// Where the last group of good records begins: whether it was synced is not known.
    pub(super) last_group: u64,
    pub(super) quarantined: Vec<Quarantined>,
    /// What is wrong at `good_bytes` although that was synced once: nothing may be cut off.
    pub(super) damage_of_synced: Option<Damage>,
}

pub(super) type FileReader = BufReader<Box<dyn DiskFile>>;

pub(super) fn scan(disk: &dyn Disk, segment: &Segment, max: u32) -> Result<Scan, RecordsError> {
    let failed = || RecordsError::io("read", &segment.path);
    let file = disk.open(&segment.path, Open::Read).map_err(failed())?;
    let file_bytes = file.length().map_err(failed())?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut state = Scan {
        end: segment.first,
        good_bytes: 0,
        file_bytes,
        last_group: 0,
        quarantined: Vec::new(),
        damage_of_synced: None,
    };
    loop {
        match read_frame(&mut reader, max).map_err(failed())? {
            Frame::End => return Ok(state),
            Frame::Record { payload, behind } => {
                state.last_group = state.good_bytes.saturating_sub(u64::from(behind));
                state.good_bytes += HEADER_BYTES + payload.len() as u64;
            }
            Frame::Bad { damage, length } => {
                if !was_synced(&mut reader, state.good_bytes, max).map_err(failed())? {
                    return Ok(state);
                }
                let behind = length.map(|length| state.good_bytes + HEADER_BYTES + length);
                let skip = match behind {
                    Some(behind) => record_stands_at(&mut reader, behind, max).map_err(failed())?,
                    None => false,
                };
                let (Some(behind), true) = (behind, skip) else {
                    state.damage_of_synced = Some(damage);
                    return Ok(state);
                };
                state.quarantined.push(Quarantined {
                    first: state.end,
                    end: state.end.next(),
                    segment: segment.path.clone(),
                    offset: state.good_bytes,
                    damage,
                });
                state.good_bytes = behind;
                reader.seek(SeekFrom::Start(behind)).map_err(failed())?;
            }
        }
        state.end = state.end.next();
    }
}

/// Index that no record within `bytes` unreadable bytes, the first of which has index `first`, can reach.
pub(super) fn most_records_behind(first: RecordIndex, bytes: u64) -> RecordIndex {
    RecordIndex(first.0.saturating_add(bytes / (HEADER_BYTES + 1)).saturating_add(1))
}

/// Whether a good record begins at `offset`. Moves the reader.
pub(super) fn record_stands_at(reader: &mut FileReader, offset: u64, max: u32) -> std::io::Result<bool> {
    reader.seek(SeekFrom::Start(offset))?;
    Ok(matches!(read_frame(reader, max)?, Frame::Record { .. }))
}

/// Whether a record somewhere behind the bad place says that the bad place was synced before it was written. Such a
/// place was damaged; any other was never promised to anyone. Out of budget counts as synced: bytes are then kept.
fn was_synced(reader: &mut FileReader, bad: u64, max: u32) -> std::io::Result<bool> {
    let mut rest = Vec::new();
    reader.seek(SeekFrom::Start(bad + 1))?;
    reader.read_to_end(&mut rest)?;
    let (mut start, mut budget) = (0, SEARCH_BUDGET);
    while let Some(candidate) = rest.get(start..) {
        let Some(length) = candidate.first_chunk::<4>().map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
        else {
            break;
        };
        start += 1;
        if length == 0 || length > u64::from(max) || length + HEADER_BYTES > candidate.len() as u64 {
            continue;
        }
        if budget < length {
            return Ok(true);
        }
        budget -= length;
        if let Frame::Record { payload, behind } = read_frame(&mut &*candidate, max)? {
            let at = bad + start as u64;
            if at.saturating_sub(u64::from(behind)) > bad {
                return Ok(true);
            }
            start += usize::try_from(HEADER_BYTES).unwrap_or_default() + payload.len() - 1;
        }
    }
    Ok(false)
}
