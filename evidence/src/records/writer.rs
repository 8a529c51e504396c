//! The writing side: append, sync, rotate, remove.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    Limits, Quarantined, Reader, RecordIndex, RecordsError, Recovery, TornTail,
    recovery::{self, Scan, most_records_behind},
    segment::{self, Segment},
};

/// A record directory open for writing, by one process at a time.
#[derive(Debug)]
pub struct RecordLog {
    directory: PathBuf,
    limits: Limits,
    segments: Vec<Held>,
    active: File,
    end: RecordIndex,
    durable_end: RecordIndex,
    failed: bool,
    /// Held for its lock.
    _lock: File,
}

#[derive(Debug)]
struct Held {
    segment: Segment,
    bytes: u64,
}

impl RecordLog {
    /// Opens `directory` (made, with mode 0700, if it is missing) and repairs what a crash left: see [`Recovery`].
    ///
    /// Reads the last segment once; older ones are not looked at.
    ///
    /// # Errors
    /// Another process holds the directory, or the file system refuses.
    pub fn open(directory: &Path, limits: Limits) -> Result<(Self, Recovery), RecordsError> {
        make_directory(directory)?;
        let lock = lock(directory)?;
        let mut segments = segment::list(directory)?;
        if segments.is_empty() {
            let first = Segment::in_directory(directory, RecordIndex(0));
            create(directory, &first)?;
            segments.push(first);
        }
        let mut held = Vec::new();
        for segment in segments {
            let bytes =
                fs::metadata(&segment.path).map_err(RecordsError::io("examine", &segment.path))?.len();
            held.push(Held { segment, bytes });
        }
        let Some(last) = held.last_mut() else {
            return Err(RecordsError::Failed(directory.to_owned()));
        };
        let scan = recovery::scan(&last.segment, limits.max_record_bytes)?;
        let active = open_for_append(&last.segment)?;
        let end = scan.end;
        let mut log = Self {
            directory: directory.to_owned(),
            limits,
            segments: held,
            active,
            end,
            durable_end: end,
            failed: false,
            _lock: lock,
        };
        let recovery = log.repair(scan)?;
        // What was read may still be in the page cache only; from here on it is promised.
        log.sync_active()?;
        sync_directory(directory)?;
        Ok((log, recovery))
    }

    fn repair(&mut self, scan: Scan) -> Result<Recovery, RecordsError> {
        let Scan { end, good_bytes, file_bytes, mut quarantined, damage_before_good } = scan;
        let mut torn_tail = None;
        let path = self.active_path();
        if let Some(damage) = damage_before_good {
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
        if self.active_bytes() >= self.limits.segment_bytes {
            self.sync()?;
            self.begin_segment()?;
        }
        let frame = segment::frame(record);
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
        if self.durable_end < self.end {
            self.sync_active()?;
            self.durable_end = self.end;
        }
        Ok(self.durable_end)
    }

    /// Deletes the segments that hold only records before `index`; the one being written always stays. Returns the
    /// bytes freed.
    ///
    /// # Errors
    /// The file system refuses; segments already deleted stay deleted.
    pub fn remove_segments_before(&mut self, index: RecordIndex) -> Result<u64, RecordsError> {
        let mut freed = 0;
        while self.segments.len() > 1 && self.segments[1].segment.first <= index {
            let oldest = &self.segments[0];
            fs::remove_file(&oldest.segment.path)
                .map_err(RecordsError::io("delete", &oldest.segment.path))?;
            freed += self.segments.remove(0).bytes;
        }
        if freed > 0 {
            sync_directory(&self.directory)?;
        }
        Ok(freed)
    }

    /// Reads from `from`, or from the oldest record if that is later, up to what is appended now;
    /// [`Reader::advance_end`] moves that bound.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn reader(&self, from: RecordIndex) -> Result<Reader, RecordsError> {
        Reader::up_to(&self.directory, self.limits.max_record_bytes, from, self.end)
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
        self.active = create(&self.directory, &segment)?;
        self.segments.push(Held { segment, bytes: 0 });
        self.durable_end = self.end;
        Ok(())
    }

    fn cut_back(&mut self, bytes: u64) -> Result<(), RecordsError> {
        self.active.set_len(bytes).map_err(|source| {
            self.failed = true;
            RecordsError::Io { action: "cut back", path: self.active_path(), source }
        })?;
        if let Some(last) = self.segments.last_mut() {
            last.bytes = bytes;
        }
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), RecordsError> {
        self.active.sync_data().map_err(|source| {
            self.failed = true;
            RecordsError::Io { action: "sync", path: self.active_path(), source }
        })
    }
}

fn make_directory(directory: &Path) -> Result<(), RecordsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(RecordsError::io("make", directory))
}

fn lock(directory: &Path) -> Result<File, RecordsError> {
    let path = directory.join("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(RecordsError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecordsError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(RecordsError::Io { action: "lock", path, source }),
    }
}

fn create(directory: &Path, segment: &Segment) -> Result<File, RecordsError> {
    let failed = || RecordsError::io("create", &segment.path);
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&segment.path).map_err(failed())?;
    // An attempt that failed half-way may have left an empty file; one with records in it was never begun by us.
    if file.metadata().map_err(failed())?.len() > 0 {
        return Err(RecordsError::Failed(directory.to_owned()));
    }
    file.sync_all().map_err(RecordsError::io("sync", &segment.path))?;
    sync_directory(directory)?;
    Ok(file)
}

fn open_for_append(segment: &Segment) -> Result<File, RecordsError> {
    OpenOptions::new().append(true).open(&segment.path).map_err(RecordsError::io("open", &segment.path))
}

fn sync_directory(directory: &Path) -> Result<(), RecordsError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(RecordsError::io("sync", directory))
}
