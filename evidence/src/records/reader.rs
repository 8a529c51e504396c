//! The reading side: records in order, damage as entries of its own.

use std::{
    cmp::Ordering,
    io::{BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Damage, Quarantined, RecordIndex, RecordsError,
    disk::{Disk, Open, SystemDisk},
    recovery::{FileReader, most_records_behind, record_stands_at},
    segment::{self, Frame, HEADER_BYTES, Segment, read_frame},
};

/// What a reader comes across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An intact record.
    Record {
        /// Its index.
        index: RecordIndex,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// Records that cannot be read; reading goes on behind them.
    Quarantined(Quarantined),
}

/// Iterates over a record directory. Needs no lock: it may read while a writer appends.
///
/// After `None` it can be used again once [`Reader::advance_end`] was called; after an error it ends.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    max: u32,
    from: RecordIndex,
    /// Records from here on are not looked at; `None`: everything that is there.
    end: Option<RecordIndex>,
    index: RecordIndex,
    open: Option<OpenSegment>,
    failed: bool,
}

enum Step {
    Entry(Entry),
    /// Nothing to report: go on.
    Nothing,
    End,
}

#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    reader: FileReader,
    offset: u64,
    /// Nothing more is read from it.
    finished: bool,
}

impl Reader {
    /// Reads the whole directory as it is, with nobody's word on where it ends: bytes behind the last good record are
    /// reported as [`Damage::Unfinished`] or whatever they look like.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn whole(directory: &Path, max_record_bytes: u32) -> Result<Self, RecordsError> {
        Self::new(Arc::new(SystemDisk), directory, max_record_bytes, RecordIndex(0), None)
    }

    /// Reads the records from `from` up to, not including, `end`, which the directory's writer has named.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn up_to(
        directory: &Path,
        max_record_bytes: u32,
        from: RecordIndex,
        end: RecordIndex,
    ) -> Result<Self, RecordsError> {
        Self::on(Arc::new(SystemDisk), directory, max_record_bytes, from, end)
    }

    pub(super) fn on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        max_record_bytes: u32,
        from: RecordIndex,
        end: RecordIndex,
    ) -> Result<Self, RecordsError> {
        Self::new(disk, directory, max_record_bytes, from, Some(end))
    }

    fn new(
        disk: Arc<dyn Disk>,
        directory: &Path,
        max: u32,
        from: RecordIndex,
        end: Option<RecordIndex>,
    ) -> Result<Self, RecordsError> {
        let directory = directory.to_owned();
        let segments = segment::list(&*disk, &directory)?;
        let index = RecordIndex(0);
        let mut reader = Self { disk, directory, max, from, end, index, open: None, failed: false };
        let start = segments.iter().rev().find(|segment| segment.first <= from).or(segments.first());
        if let Some(segment) = start {
            reader.enter(segment.clone())?;
        }
        Ok(reader)
    }

    /// Lets the reader go on up to `end`: for a reader of a log that has grown.
    pub fn advance_end(&mut self, end: RecordIndex) {
        self.end = self.end.map(|old| old.max(end));
    }

    /// Index of the next record this reader will return.
    #[must_use]
    pub fn position(&self) -> RecordIndex {
        self.index.max(self.from)
    }

    fn enter(&mut self, segment: Segment) -> Result<(), RecordsError> {
        let file =
            self.disk.open(&segment.path, Open::Read).map_err(RecordsError::io("open", &segment.path))?;
        self.index = segment.first;
        let reader = BufReader::with_capacity(1 << 16, file);
        self.open = Some(OpenSegment { segment, reader, offset: 0, finished: false });
        Ok(())
    }

    fn step(&mut self) -> Result<Step, RecordsError> {
        if self.end.is_some_and(|end| self.index >= end) {
            return Ok(Step::End);
        }
        let Some(open) = self.open.as_mut() else { return Ok(Step::End) };
        if open.finished {
            return self.next_segment();
        }
        let failed = || RecordsError::io("read", &open.segment.path);
        match read_frame(&mut open.reader, self.max).map_err(failed())? {
            Frame::End => {
                open.finished = true;
                Ok(Step::Nothing)
            }
            Frame::Record { payload, .. } => {
                open.offset += HEADER_BYTES + payload.len() as u64;
                let index = self.index;
                self.index = index.next();
                let wanted = index >= self.from;
                Ok(if wanted { Step::Entry(Entry::Record { index, payload }) } else { Step::Nothing })
            }
            Frame::Bad { damage, length } => self.bad_frame(damage, length),
        }
    }

    /// Skips one record if a good one stands right behind it, else the rest of the segment.
    fn bad_frame(&mut self, damage: Damage, length: Option<u64>) -> Result<Step, RecordsError> {
        let Some(open) = self.open.as_mut() else { return Ok(Step::End) };
        let failed = || RecordsError::io("read", &open.segment.path);
        let offset = open.offset;
        if let Some(length) = length {
            let behind = offset + HEADER_BYTES + length;
            if record_stands_at(&mut open.reader, behind, self.max).map_err(failed())? {
                open.reader.seek(SeekFrom::Start(behind)).map_err(failed())?;
                open.offset = behind;
                return Ok(self.quarantine(self.index.next(), offset, damage));
            }
        }
        open.finished = true;
        let end = match self.segment_behind()? {
            Some(next) => next.first,
            None => match self.end {
                Some(end) => end,
                None => self.index_behind_rest(offset)?,
            },
        };
        Ok(self.quarantine(end, offset, damage))
    }

    /// Index behind the most records that the open segment's rest could hold.
    fn index_behind_rest(&self, offset: u64) -> Result<RecordIndex, RecordsError> {
        let Some(open) = &self.open else { return Ok(self.index) };
        let bytes = open.reader.get_ref().length();
        let bytes = bytes.map_err(RecordsError::io("examine", &open.segment.path))?;
        Ok(most_records_behind(self.index, bytes.saturating_sub(offset)))
    }

    /// Goes to the next segment, reporting records that are missing in between.
    fn next_segment(&mut self) -> Result<Step, RecordsError> {
        let offset = self.open.as_ref().map_or(0, |open| open.offset);
        let Some(next) = self.segment_behind()? else {
            // Nothing behind: a writer's word on the end says whether something is missing.
            return Ok(match self.end {
                Some(end) => self.quarantine(end, offset, Damage::Missing),
                None => Step::End,
            });
        };
        let index = self.index;
        let found = match next.first.cmp(&index) {
            Ordering::Greater => self.quarantine(next.first, offset, Damage::Missing),
            Ordering::Less => self.quarantine(index, offset, Damage::Overlap),
            Ordering::Equal => Step::Nothing,
        };
        self.enter(next)?;
        Ok(found)
    }

    fn segment_behind(&self) -> Result<Option<Segment>, RecordsError> {
        let Some(open) = &self.open else { return Ok(None) };
        let segments = segment::list(&*self.disk, &self.directory)?;
        Ok(segments.into_iter().find(|segment| segment.first > open.segment.first))
    }

    /// Reports the range up to `end` and moves behind it.
    fn quarantine(&mut self, end: RecordIndex, offset: u64, damage: Damage) -> Step {
        let first = self.index;
        self.index = first.max(end);
        let segment = self.open.as_ref().map(|open| open.segment.path.clone()).unwrap_or_default();
        let found = Quarantined { first, end, segment, offset, damage };
        if end >= self.from { Step::Entry(Entry::Quarantined(found)) } else { Step::Nothing }
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.step() {
                Ok(Step::Entry(entry)) => return Some(Ok(entry)),
                Ok(Step::Nothing) => {}
                Ok(Step::End) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
