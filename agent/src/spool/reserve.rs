//! Keeps the spool from filling the disk, and keeps room for what must work on a disk that others have filled.
//!
//! Giving events up writes a smaller copy of a file before the file goes. For that copy the file `reserve` holds as many
//! bytes as a segment may have: it is deleted when the disk is full, and made again when there is room.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use nix::{errno::Errno, fcntl::posix_fallocate, sys::statvfs::statvfs};

use super::small_file;

const NAME: &str = "reserve";

pub(super) struct Reserve {
    directory: PathBuf,
    bytes: u64,
    /// Bytes of the file system that are left to others.
    min_free: u64,
    is_there: bool,
}

impl Reserve {
    pub(super) fn new(directory: PathBuf, bytes: u64, min_free: u64) -> Self {
        let is_there = directory.join(NAME).metadata().is_ok_and(|found| found.len() == bytes);
        Self { directory, bytes, min_free, is_there }
    }

    /// Bytes that may be written before no more than what is left to others is free. Unknown counts as none.
    pub(super) fn usable_bytes(&self) -> u64 {
        let free = statvfs(&self.directory).map_or(0, |disk| disk.blocks_available() * disk.fragment_size());
        free.saturating_sub(self.min_free)
    }

    /// Sets the reserve aside, if it is not there and there is room.
    pub(super) fn restore(&mut self) {
        if !self.is_there && self.usable_bytes() > self.bytes {
            self.is_there = self.allocate().is_ok();
        }
    }

    /// Gives the reserve's bytes back to the file system; whether there were any.
    pub(super) fn release(&mut self) -> bool {
        let was_there = std::mem::take(&mut self.is_there);
        small_file::remove(&self.directory.join(NAME)).is_ok() && was_there
    }

    fn allocate(&self) -> io::Result<()> {
        let path = self.directory.join(NAME);
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
        let length = i64::try_from(self.bytes).map_err(|_| Errno::EFBIG)?;
        let allocated = posix_fallocate(&file, 0, length);
        if allocated.is_err() {
            small_file::remove(&path)?;
        }
        Ok(allocated?)
    }
}
