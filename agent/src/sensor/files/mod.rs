//! Opens of secret files, from fanotify marks on their inodes.
//!
//! In: the catalogue's targets, and what the eBPF programs report of them where they can. Out: [`FileEvent`]s, however the
//! file was reached (another name, a hard link, `io_uring`, a file handle, an overlay). Notification only: an opener never
//! waits for the agent. Must never read a secret, and must never report a file that is not one.
//!
//! fanotify stays on when the programs report opens: it tells at no cost which descriptors were really read or written.

mod changes;
mod marks;
mod operations;
mod touch;
mod watch;
pub(super) mod wire;

pub use operations::Operations;
pub use watch::KernelWatch;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
    rc::Rc,
};

use nix::{
    libc,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags},
};

use tracing::warn;

use crate::{
    catalog::{
        Entry,
        files::{Anywhere, Target},
    },
    clock::BootTime,
    process::ProcessId,
};
use changes::Changes;
use marks::{Identified, Marks};
use wire::RawEvent;

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
    /// Of an open or named file.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
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
    /// Its name alone, or a job's variable, makes it a secret: no news outside jobs.
    pub in_jobs_only: bool,
    /// What only the eBPF programs can tell.
    pub seen: Option<Seen>,
}

/// A file that a job's environment variable calls a credential.
#[derive(Clone, Debug)]
pub struct Relocated {
    /// Where.
    pub path: PathBuf,
    /// As what.
    pub entry: Rc<Entry>,
    /// Whose variable names it.
    pub job: String,
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
        let changes = Changes::new()
            .inspect_err(|error| warn!(%error, "changes of secret files cannot be watched"))
            .ok();
        let mut marks = Marks::new(targets, anywhere, kernel, changes)?;
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

    /// Becomes readable when a secret was changed without being opened; `None` where that cannot be seen.
    #[must_use]
    pub fn changed_fd(&self) -> Option<BorrowedFd<'_>> {
        self.marks.changed_fd()
    }

    /// Watches what a job's variables call credentials.
    pub fn watch_relocated(&mut self, relocated: &[Relocated]) {
        for file in relocated {
            self.marks.add_relocated(&self.fanotify, file);
        }
    }

    /// The job has ended.
    pub fn forget_job(&mut self, job: &str) {
        self.marks.forget_job(&self.fanotify, job);
    }

    /// Files that are watched now.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.marks.watched()
    }

    /// Reads the events that wait. Changes are read first: what they say of a name is about the file that had it before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn read(&mut self) -> io::Result<FileBatch> {
        let mut batch = FileBatch::default();
        self.read_group(&mut batch, true)?;
        self.marks.follow_changes(&self.fanotify);
        self.read_group(&mut batch, false)?;
        Ok(batch)
    }

    fn read_group(&mut self, batch: &mut FileBatch, changes: bool) -> io::Result<()> {
        for _ in 0..MAX_READS {
            let opens = (!changes).then(|| self.fanotify.as_fd());
            let Some(group) = opens.or_else(|| self.marks.changed_fd()) else { break };
            let length = match nix::unistd::read(group, &mut self.buffer) {
                Ok(0) | Err(nix::Error::EAGAIN) => break,
                Ok(length) => length,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let time = BootTime::now();
            for mut raw in wire::parse(&self.buffer[..length]) {
                if raw.overflow {
                    batch.overflows += 1;
                } else if raw.pid != self.own_pid {
                    let found = match raw.file.take() {
                        Some(file) => self.opened(file),
                        None => self.marks.changed(&raw),
                    };
                    batch.events.extend(found.map(|(file, found)| event(&raw, time, file, found)));
                }
            }
        }
        Ok(())
    }

    /// Which file was opened, if it is a secret: a marked directory reports all its files.
    fn opened(&mut self, file: OwnedFd) -> Option<(FileId, Identified)> {
        let file = File::from(file);
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        // A path can be longer than what the kernel tells.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok();
        let found = self.marks.entry_of(&self.fanotify, &metadata, path.as_deref())?;
        Some((FileId::of(&metadata), found))
    }
}

fn event(raw: &RawEvent, time: BootTime, file: FileId, found: Identified) -> FileEvent {
    FileEvent {
        time,
        process: Who::Number { pid: u32::try_from(raw.pid).unwrap_or_default(), alive: raw.alive },
        entry: found.entry,
        path: found.path.unwrap_or_default(),
        file,
        operations: raw.operations,
        in_jobs_only: found.in_jobs_only,
        seen: None,
    }
}
