//! Opens of secret files, from fanotify marks on their inodes.
//!
//! In: the catalogue's targets. Out: [`FileEvent`]s, however the file was reached (another name, a hard link, `io_uring`, a
//! file handle, an overlay). Notification only: an opener never waits for the agent. Must never read a secret, and must
//! never report a file that is not one.

mod marks;
mod wire;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::Path,
    rc::Rc,
};

use nix::{
    libc,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags},
};

use crate::{
    catalog::{Entry, files::Target},
    clock::BootTime,
};
use marks::Marks;

/// Bytes of events read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most reads in one go, so that a flood cannot keep the rest waiting.
const MAX_READS: usize = 64;

/// What was done to a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set: each is there or not")]
pub struct Operations {
    /// Opened.
    pub open: bool,
    /// Read.
    pub read: bool,
    /// Written.
    pub write: bool,
    /// Closed.
    pub close: bool,
}

impl Operations {
    /// Both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            open: self.open || other.open,
            read: self.read || other.read,
            write: self.write || other.write,
            close: self.close || other.close,
        }
    }
}

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Kernel encoding, as in the exec records.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl FileId {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let device = metadata.dev();
        let encoded = u64::from(libc::major(device)) << 20 | u64::from(libc::minor(device));
        Self { device: encoded, inode: metadata.ino() }
    }
}

/// A secret was touched.
#[derive(Clone, Debug)]
pub struct FileEvent {
    /// When the agent read the event, within about a millisecond of what happened.
    pub time: BootTime,
    /// By whom; 0 when the process is of another pid namespace than the agent.
    pub pid: u32,
    /// The process still existed when the event was read.
    pub alive: bool,
    /// Which secret.
    pub entry: Rc<Entry>,
    /// The file's own path, symbolic links resolved.
    pub path: Vec<u8>,
    /// Which file.
    pub file: FileId,
    /// What was done. Equal events that wait in the kernel are merged.
    pub operations: Operations,
}

/// Events that were read, and events that were lost.
#[derive(Debug, Default)]
pub struct FileBatch {
    /// In the order in which they happened.
    pub events: Vec<FileEvent>,
    /// The kernel had no room: at least so many times.
    pub overflows: u64,
}

/// Watches the catalogue's files.
#[derive(Debug)]
pub struct FileSensor {
    fanotify: Fanotify,
    marks: Marks,
    own_pid: i32,
    buffer: Vec<u8>,
}

impl FileSensor {
    /// Marks every target that exists, and the directories where others can appear.
    ///
    /// # Errors
    ///
    /// When the kernel refuses fanotify (before Linux 5.15: no pidfd) or inotify to this process.
    pub fn start(targets: Vec<Target>) -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS
            | InitFlags::FAN_REPORT_PIDFD;
        let event_flags = EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC;
        let fanotify = Fanotify::init(flags, event_flags)?;
        let mut marks = Marks::new(targets)?;
        marks.scan_all(&fanotify);
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        Ok(Self { fanotify, marks, own_pid, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Becomes readable when a secret was touched.
    #[must_use]
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }

    /// Becomes readable when something appeared in a directory where secrets can be.
    #[must_use]
    pub fn changes_fd(&self) -> BorrowedFd<'_> {
        self.marks.changes_fd()
    }

    /// Files that are watched now.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.marks.watched()
    }

    /// Marks what appeared since.
    pub fn follow_changes(&mut self) {
        self.marks.follow_changes(&self.fanotify);
    }

    /// Reads the events that wait.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn read(&mut self) -> io::Result<FileBatch> {
        let mut batch = FileBatch::default();
        for _ in 0..MAX_READS {
            let length = match nix::unistd::read(&self.fanotify, &mut self.buffer) {
                Ok(0) | Err(nix::Error::EAGAIN) => break,
                Ok(length) => length,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let time = BootTime::now();
            for raw in wire::parse(&self.buffer[..length]) {
                if raw.overflow {
                    batch.overflows += 1;
                } else if raw.pid != self.own_pid
                    && let Some(file) = raw.file
                    && let Some(event) = self.describe(file, raw.pid, raw.alive, raw.operations, time)
                {
                    batch.events.push(event);
                }
            }
        }
        Ok(batch)
    }

    /// The event, if the file is a secret: a marked directory reports all its files.
    fn describe(
        &mut self,
        file: OwnedFd,
        pid: i32,
        alive: bool,
        operations: Operations,
        time: BootTime,
    ) -> Option<FileEvent> {
        let file = File::from(file);
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        let entry = self.marks.entry_of(&self.fanotify, &metadata, Path::new(&path))?;
        Some(FileEvent {
            time,
            pid: u32::try_from(pid).unwrap_or_default(),
            alive,
            entry,
            path: path.into_os_string().into_vec(),
            file: FileId::of(&metadata),
            operations,
        })
    }
}
