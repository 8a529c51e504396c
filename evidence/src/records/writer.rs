//! The writing side: append, sync, rotate, rewrite, remove.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Entry, Limits, Quarantined, Reader, RecordIndex, RecordsError, Recovery, TornTail,
    disk::{Disk, DiskFile, Lock, Open, SystemDisk},
    recovery::{self, Scan, most_records_behind},
    segment::{self, Segment},
};

/// Most bytes that may be appended without a sync.
const MAX_GROUP_BYTES: u64 = 1 << 30;

/// A record directory open for writing, by one process at a time.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent things that a refusal leaves undone")]
pub struct RecordLog {
    disk: Arc<dyn Disk>,
    limits: Limits,
    directory: PathBuf,
    segments: Vec<Held>,
    active: Box<dyn DiskFile>,
    end: RecordIndex,
    durable_end: RecordIndex,
    /// Bytes of the active segment that are on disk: the next group begins here.
    durable_bytes: u64,
    /// Something was cut off that is not synced: it must not come back behind what follows.
    cut: bool,
    /// The next segment's file may be there already, so nothing more may go into the one before.
    rotating: bool,
    unsynced_removal: bool,
    failed: bool,
    _lock: Box<dyn Lock>,
}

#[derive(Debug)]
struct Held {
    segment: Segment,
    bytes: u64,
}

/// A segment that gets no further records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its first record.
    pub first: RecordIndex,
    /// First record behind it.
    pub end: RecordIndex,
    /// Its length.
    pub bytes: u64,
}

impl RecordLog {
    /// Opens `directory` (made, with mode 0700, if it is missing) and repairs what a crash left: see [`Recovery`].
    ///
    /// Reads the last segment once; older ones are not looked at.
    ///
    /// # Errors
    /// Another process holds the directory, or the file system refuses.
    pub fn open(directory: &Path, limits: Limits) -> Result<(Self, Recovery), RecordsError> {
        Self::open_on(Arc::new(SystemDisk), directory, limits)
    }

    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        limits: Limits,
    ) -> Result<(Self, Recovery), RecordsError> {
        make_directory(&*disk, directory)?;
        let lock = lock(&*disk, directory)?;
        for path in segment::unfinished_successors(&*disk, directory)? {
            disk.remove(&path).map_err(RecordsError::io("delete", &path))?;
        }
        let mut segments = segment::list(&*disk, directory)?;
        if segments.is_empty() {
            let first = Segment::in_directory(directory, RecordIndex(0));
            create(&*disk, directory, &first)?;
            segments.push(first);
        }
        let mut held = Vec::new();
        for segment in segments {
            let opened = disk.open(&segment.path, Open::Read);
            let bytes = opened.and_then(|file| file.length());
            let bytes = bytes.map_err(RecordsError::io("examine", &segment.path))?;
            held.push(Held { segment, bytes });
        }
        let Some(last) = held.last() else {
            return Err(RecordsError::Failed(directory.to_owned()));
        };
        let scan = recovery::scan(&*disk, &last.segment, limits.max_record_bytes)?;
        let path = &last.segment.path;
        let active = disk.open(path, Open::Append).map_err(RecordsError::io("open", path))?;
        let mut log = Self {
            disk,
            limits,
            directory: directory.to_owned(),
            segments: held,
            active,
            end: scan.end,
            durable_end: scan.end,
            durable_bytes: scan.good_bytes,
            cut: false,
            rotating: false,
            unsynced_removal: false,
            failed: false,
            _lock: lock,
        };
        let last_group = scan.last_group;
        let recovery = log.repair(scan)?;
        // From here on, what was read is promised.
        log.write_again_from(last_group)?;
        log.sync_active()?;
        log.disk.sync_directory(directory).map_err(RecordsError::io("sync", directory))?;
        Ok((log, recovery))
    }

    fn repair(&mut self, scan: Scan) -> Result<Recovery, RecordsError> {
        let Scan { end, good_bytes, file_bytes, mut quarantined, damage_of_synced, .. } = scan;
        let mut torn_tail = None;
        let path = self.active_path();
        if let Some(damage) = damage_of_synced {
            // How many records stood there is unknown: go on behind the most that fit, so no index is used twice.
            let behind = most_records_behind(end, file_bytes - good_bytes);
            quarantined.push(Quarantined {
                first: end,
                end: behind,
                segment: path,
                offset: good_bytes,
                damage,
            });
            self.end = behind;
            self.begin_segment()?;
        } else if file_bytes > good_bytes {
            self.cut_back(good_bytes)?;
            let bytes = file_bytes - good_bytes;
            torn_tail = Some(TornTail { segment: path, offset: good_bytes, bytes, index: end });
        }
        Ok(Recovery { torn_tail, quarantined })
    }

    /// Writes the last group once more: after a failed sync the page cache may hold, as clean, what is not on disk, and
    /// then nothing but a new write brings it there.
    fn write_again_from(&mut self, offset: u64) -> Result<(), RecordsError> {
        let path = self.active_path();
        let length = self.active_bytes().saturating_sub(offset);
        if length == 0 {
            return Ok(());
        }
        let copy = || -> io::Result<()> {
            let mut bytes = Vec::new();
            let mut reader = self.disk.open(&path, Open::Read)?;
            reader.seek(SeekFrom::Start(offset))?;
            reader.take(length).read_to_end(&mut bytes)?;
            let mut writer = self.disk.open(&path, Open::Overwrite)?;
            writer.seek(SeekFrom::Start(offset))?;
            writer.write_all(&bytes)
        };
        copy().map_err(RecordsError::io("write again the end of", &path))
    }

    /// Appends a record and returns its index. It is durable only after the next [`RecordLog::sync`].
    ///
    /// # Errors
    /// The record is empty or too long; or the disk refuses, and then nothing of the record stays and the same record
    /// may be appended again; or an earlier failure left the log unusable.
    pub fn append(&mut self, record: &[u8]) -> Result<RecordIndex, RecordsError> {
        self.ensure_usable()?;
        let max = self.limits.max_record_bytes;
        if record.is_empty() || record.len() as u64 > u64::from(max) {
            return Err(RecordsError::Size { bytes: record.len(), max });
        }
        if self.rotating || self.active_bytes() >= self.limits.segment_bytes {
            self.rotate()?;
        } else if self.active_bytes() - self.durable_bytes > MAX_GROUP_BYTES {
            self.sync()?;
        }
        let behind = u32::try_from(self.active_bytes() - self.durable_bytes).unwrap_or(u32::MAX);
        let frame = segment::frame(record, behind);
        if let Err(source) = self.active.write_all(&frame) {
            self.cut_back(self.active_bytes())?;
            return Err(RecordsError::Io { action: "append to", path: self.active_path(), source });
        }
        if let Some(last) = self.segments.last_mut() {
            last.bytes += frame.len() as u64;
        }
        let index = self.end;
        self.end = index.next();
        Ok(index)
    }

    /// Makes every appended record durable (`fdatasync`) and returns the new durable end.
    ///
    /// # Errors
    /// The disk refused: records behind [`RecordLog::durable_end`] may or may not survive, and the log refuses further
    /// work.
    pub fn sync(&mut self) -> Result<RecordIndex, RecordsError> {
        self.ensure_usable()?;
        if self.durable_end < self.end || self.cut {
            self.sync_active()?;
            self.durable_end = self.end;
            self.durable_bytes = self.active_bytes();
        }
        Ok(self.durable_end)
    }

    /// Syncs, closes the segment that is being written and begins the next one. An empty one stays.
    ///
    /// # Errors
    /// As [`RecordLog::sync`]; or the next one cannot be made: that is then tried again by whatever comes next.
    pub fn rotate(&mut self) -> Result<(), RecordsError> {
        self.sync()?;
        if self.active_bytes() > 0 { self.begin_segment() } else { Ok(()) }
    }

    /// Goes on at `index`, beyond the end: records in between are lost for good, and reported as missing whenever they
    /// would be read. Does nothing when that many records are there.
    ///
    /// # Errors
    /// As [`RecordLog::rotate`].
    pub fn skip_to(&mut self, index: RecordIndex) -> Result<(), RecordsError> {
        self.sync()?;
        if index > self.end {
            self.end = index;
            self.begin_segment()?;
        }
        Ok(())
    }

    /// Deletes the segments that hold only records before `index`; the one being written always stays. Returns the
    /// bytes freed.
    ///
    /// # Errors
    /// The file system refuses; segments already deleted stay deleted.
    pub fn remove_segments_before(&mut self, index: RecordIndex) -> Result<u64, RecordsError> {
        let mut freed = 0;
        while self.segments.len() > 1 && self.segments[1].segment.first <= index {
            // Before each one, or a crash could bring back an older one and not its successor.
            self.sync_names()?;
            let path = &self.segments[0].segment.path;
            self.disk.remove(path).map_err(RecordsError::io("delete", path))?;
            self.unsynced_removal = true;
            freed += self.segments.remove(0).bytes;
        }
        self.sync_names()?;
        Ok(freed)
    }

    /// The segments that get no further records, oldest first.
    pub fn closed_segments(&self) -> impl Iterator<Item = ClosedSegment> {
        self.segments.windows(2).map(|pair| ClosedSegment {
            first: pair[0].segment.first,
            end: pair[1].segment.first,
            bytes: pair[0].bytes,
        })
    }

    /// Replaces records of the closed segment that begins with `first`: `change` says by what, or `None` for a record
    /// that stays as it is. The records keep their indexes. After a crash either all of the new ones are there or all
    /// of the old ones. Returns whether it was done: a damaged segment is left as it is.
    ///
    /// # Errors
    /// There is no such segment, or the file system refuses: then the old records are still there, or, if only the last
    /// sync was refused, the new ones, but which of both survives a crash is open.
    pub fn rewrite_segment(
        &mut self,
        first: RecordIndex,
        mut change: impl FnMut(RecordIndex, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<bool, RecordsError> {
        let Some(place) = self.closed_segments().position(|closed| closed.first == first) else {
            return Err(RecordsError::NoSegment(first));
        };
        let end = self.segments[place + 1].segment.first;
        let mut frames = Vec::new();
        for entry in Reader::on(self.disk.clone(), &self.directory, self.limits.max_record_bytes, first, end)?
        {
            match entry? {
                // All of the file is synced before it takes the segment's name: no frame shares a group.
                Entry::Record { index, payload } => match change(index, &payload) {
                    Some(new) => frames.extend(segment::frame(&new, 0)),
                    None => frames.extend(segment::frame(&payload, 0)),
                },
                Entry::Quarantined(_) => return Ok(false),
            }
        }
        let segment = self.segments[place].segment.clone();
        let successor = segment.successor();
        if let Err(error) = self.write_whole(&successor, &frames) {
            let _ = self.disk.remove(&successor);
            return Err(RecordsError::Io { action: "write", path: successor, source: error });
        }
        let renamed = self.disk.rename(&successor, &segment.path);
        renamed.map_err(RecordsError::io("replace", &segment.path))?;
        self.segments[place].bytes = frames.len() as u64;
        self.disk.sync_directory(&self.directory).map_err(RecordsError::io("sync", &self.directory))?;
        Ok(true)
    }

    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.disk.open(path, Open::Create)?;
        file.cut(0)?;
        file.write_all(bytes)?;
        file.sync()
    }

    /// Reads from `from`, or from the oldest record if that is later, up to what is appended now;
    /// [`Reader::advance_end`] moves that bound.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn reader(&self, from: RecordIndex) -> Result<Reader, RecordsError> {
        Reader::on(self.disk.clone(), &self.directory, self.limits.max_record_bytes, from, self.end)
    }

    /// Index of the oldest record kept (or of the next one, if there is none).
    #[must_use]
    pub fn first(&self) -> RecordIndex {
        self.segments.first().map_or(self.end, |held| held.segment.first)
    }

    /// Index that the next record will have.
    #[must_use]
    pub fn end(&self) -> RecordIndex {
        self.end
    }

    /// Every record before this index is on disk.
    #[must_use]
    pub fn durable_end(&self) -> RecordIndex {
        self.durable_end
    }

    /// Bytes in all segments.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|held| held.bytes).sum()
    }

    fn sync_names(&mut self) -> Result<(), RecordsError> {
        if self.unsynced_removal {
            let synced = self.disk.sync_directory(&self.directory);
            synced.map_err(RecordsError::io("sync", &self.directory))?;
            self.unsynced_removal = false;
        }
        Ok(())
    }

    fn ensure_usable(&self) -> Result<(), RecordsError> {
        if self.failed { Err(RecordsError::Failed(self.directory.clone())) } else { Ok(()) }
    }

    fn active_bytes(&self) -> u64 {
        self.segments.last().map_or(0, |held| held.bytes)
    }

    fn active_path(&self) -> PathBuf {
        self.segments.last().map_or_else(|| self.directory.clone(), |held| held.segment.path.clone())
    }

    fn begin_segment(&mut self) -> Result<(), RecordsError> {
        let segment = Segment::in_directory(&self.directory, self.end);
        self.rotating = true;
        self.active = create(&*self.disk, &self.directory, &segment)?;
        self.rotating = false;
        self.segments.push(Held { segment, bytes: 0 });
        self.durable_end = self.end;
        self.durable_bytes = 0;
        Ok(())
    }

    fn cut_back(&mut self, bytes: u64) -> Result<(), RecordsError> {
        self.cut = true;
        self.active.cut(bytes).map_err(|source| {
            self.failed = true;
            RecordsError::Io { action: "cut back", path: self.active_path(), source }
        })?;
        if let Some(last) = self.segments.last_mut() {
            last.bytes = bytes;
        }
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), RecordsError> {
        self.active.sync().map_err(|source| {
            self.failed = true;
            RecordsError::Io { action: "sync", path: self.active_path(), source }
        })?;
        self.cut = false;
        Ok(())
    }
}

/// Makes the directory and what is missing above it, and makes their names durable: an earlier start may have been
/// interrupted right behind making them.
fn make_directory(disk: &dyn Disk, directory: &Path) -> Result<(), RecordsError> {
    let failed = || RecordsError::io("make", directory);
    let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
    match disk.make_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(above) = above else { return Err(failed()(error)) };
            make_directory(disk, above)?;
            disk.make_directory(directory).map_err(failed())?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed()(error)),
        Ok(()) | Err(_) => {}
    }
    for above in directory.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        match disk.sync_directory(above) {
            // Nothing can have been made there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(RecordsError::io("sync", above))?,
        }
    }
    Ok(())
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn Lock>, RecordsError> {
    let path = directory.join("lock");
    let held = disk.lock(&path).map_err(RecordsError::io("lock", &path))?;
    held.ok_or_else(|| RecordsError::InUse(directory.to_owned()))
}

fn create(disk: &dyn Disk, directory: &Path, segment: &Segment) -> Result<Box<dyn DiskFile>, RecordsError> {
    let failed = || RecordsError::io("create", &segment.path);
    let mut file = disk.open(&segment.path, Open::Create).map_err(failed())?;
    // An attempt that failed half-way may have left an empty file; one with records in it was never begun by us.
    if file.length().map_err(failed())? > 0 {
        return Err(RecordsError::Failed(directory.to_owned()));
    }
    file.sync().map_err(RecordsError::io("sync", &segment.path))?;
    disk.sync_directory(directory).map_err(RecordsError::io("sync", directory))?;
    Ok(file)
}
