//! Opens of secret files, from fanotify marks on their inodes.
//!
//! In: the catalogue's targets, and what the eBPF programs report of them where they can. Out: [`FileEvent`]s, however the
//! file was reached (another name, a hard link, `io_uring`, a file handle, an overlay). Notification only: an opener never
//! waits for the agent. Must never read a secret, and must never report a file that is not one.
//!
//! fanotify stays on when the programs report opens: it tells at no cost which descriptors were really read or written.

mod marks;
mod operations;
mod touch;
mod watch;
mod wire;

pub use operations::Operations;
pub use watch::KernelWatch;

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
    catalog::{
        Entry,
        files::{Anywhere, Target},
    },
    clock::BootTime,
    process::ProcessId,
};
use marks::Marks;

/// Bytes of events read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Most reads in one go, so that a flood cannot keep the rest waiting.
const MAX_READS: usize = 64;

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
    /// When; for fanotify when the agent read the event, within about a millisecond of what happened.
    pub time: BootTime,
    /// By whom.
    pub process: Who,
    /// Which secret.
    pub entry: Rc<Entry>,
    /// The file's own path, symbolic links resolved.
    pub path: Vec<u8>,
    /// Which file.
    pub file: FileId,
    /// What was done. Equal events that wait in the kernel are merged.
    pub operations: Operations,
    /// What only the eBPF programs can tell.
    pub seen: Option<Seen>,
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The eBPF programs know it.
    Known(ProcessId),
    /// fanotify tells a number; 0 when the process is of another pid namespace than the agent.
    Number {
        /// The process.
        pid: u32,
        /// It still existed when the event was read.
        alive: bool,
    },
}

/// An access as the process made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The path from the process's root, in its mount namespace; empty when it was not read.
    pub path: Vec<u8>,
    /// How it came to the open file.
    pub way: buildtrail_proto::v1::FileWay,
    /// Known by its name alone.
    pub by_name: bool,
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
    pub fn start(
        targets: Vec<Target>,
        anywhere: Vec<Anywhere>,
        kernel: Option<KernelWatch>,
    ) -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS
            | InitFlags::FAN_REPORT_PIDFD;
        let event_flags = EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC;
        let fanotify = Fanotify::init(flags, event_flags)?;
        let mut marks = Marks::new(targets, anywhere, kernel)?;
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
            process: Who::Number { pid: u32::try_from(pid).unwrap_or_default(), alive },
            entry,
            path: path.into_os_string().into_vec(),
            file: FileId::of(&metadata),
            operations,
            seen: None,
        })
    }
}
