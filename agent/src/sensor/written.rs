//! Which files processes wrote, whichever they are, and who reads those that jobs left behind.
//!
//! In: file systems to watch, files to follow. Out: [`Act`]s, from one fanotify group: a mark on each
//! file system that tells only the end of writing, and marks on single inodes that tell reads. So opening and reading
//! anything else costs nothing, and writing a file one event at its end. Must never watch a file system that may hang
//! (network, FUSE): the agent opens what it is told of.
//!
//! Not waited for: it is read whenever something else is, and a bounded queue holds what comes between.

use std::{
    collections::HashSet,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::sys::{
    fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
    statfs::{self, FsType},
};
use tracing::debug;

use super::files::{FileId, Operations, Who, wire};
use crate::clock::BootTime;

/// Bytes of events read at once: each event brings two descriptors.
const BUFFER_BYTES: usize = 16 * 1024;
/// Most reads in one go.
const MAX_READS: usize = 256;
/// Most files that are followed at once.
const MAX_FOLLOWED: usize = 8192;

/// What every host has, and where jobs' files usually lie.
const PLACES: &[&str] =
    &["/", "/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var", "/var/lib", "/var/tmp"];

/// A file as it was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which inode.
    pub file: FileId,
    /// When that was made, where the file system keeps it.
    pub created: Option<SystemTime>,
    /// When it last changed, in any way.
    pub changed: (i64, i64),
}

impl Version {
    /// Of a file that exists.
    #[must_use]
    pub fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            file: FileId::of(metadata),
            created: metadata.created().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether this is the same file, however it was changed since. Where file systems do not keep when a file was made, a
    /// changed one counts as another.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        let same = match (self.created, other.created) {
            (Some(one), Some(two)) => one == two,
            _ => self.changed == other.changed,
        };
        self.file == other.file && same
    }
}

/// A process did something to a file.
#[derive(Clone, Debug)]
pub struct Act {
    /// When the agent read of it.
    pub time: BootTime,
    /// Who.
    pub process: Who,
    /// Which file.
    pub version: Version,
    /// Its path on the host.
    pub path: Vec<u8>,
    /// A descriptor that could write was closed.
    pub written: bool,
    /// It was read. Only of followed files.
    pub read: bool,
}

/// What was read, and what was lost.
#[derive(Debug, Default)]
pub struct Acts {
    /// In the order in which they happened.
    pub acts: Vec<Act>,
    /// The kernel had no room: at least so many times.
    pub overflows: u64,
}

/// The group.
#[derive(Debug)]
pub struct WriteSensor {
    fanotify: Fanotify,
    systems: HashSet<u64>,
    followed: usize,
    own_pid: i32,
    buffer: Vec<u8>,
}

impl WriteSensor {
    /// Marks the usual file systems.
    ///
    /// # Errors
    ///
    /// When the kernel refuses fanotify, or its marks on file systems.
    pub fn start() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS
            | InitFlags::FAN_REPORT_PIDFD;
        // Not blocking: what is opened may hold a lease.
        let opening = EventFFlags::O_RDONLY
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_NONBLOCK;
        let mut sensor = Self {
            fanotify: Fanotify::init(flags, opening)?,
            systems: HashSet::new(),
            followed: 0,
            own_pid: i32::try_from(std::process::id()).unwrap_or_default(),
            buffer: vec![0; BUFFER_BYTES],
        };
        let results: Vec<io::Result<()>> =
            PLACES.iter().map(|place| sensor.watch_system_of(Path::new(place))).collect();
        match (sensor.systems.is_empty(), results.into_iter().find_map(Result::err)) {
            (true, Some(error)) => Err(error),
            _ => Ok(sensor),
        }
    }

    /// File systems that are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.systems.len()
    }

    /// Watches the file system that a directory is on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the mark. A file system that may hang is left out, which is no error.
    pub fn watch_system_of(&mut self, directory: &Path) -> io::Result<()> {
        let Ok(metadata) = std::fs::metadata(directory) else { return Ok(()) };
        if self.systems.contains(&metadata.dev()) || !is_local(directory) {
            return Ok(());
        }
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        self.fanotify.mark(flags, MaskFlags::FAN_CLOSE_WRITE, nix::fcntl::AT_FDCWD, Some(directory))?;
        self.systems.insert(metadata.dev());
        Ok(())
    }

    /// Tells from now on who reads this file, if it is still at its place and there is room.
    pub fn follow(&mut self, path: &Path, version: &Version) {
        let there = std::fs::symlink_metadata(path);
        if self.followed >= MAX_FOLLOWED || !there.is_ok_and(|there| FileId::of(&there) == version.file) {
            return;
        }
        match self.fanotify.mark(
            MarkFlags::FAN_MARK_ADD,
            MaskFlags::FAN_ACCESS,
            nix::fcntl::AT_FDCWD,
            Some(path),
        ) {
            Ok(()) => self.followed += 1,
            Err(error) => debug!(%error, "a file that a job left cannot be followed"),
        }
    }

    /// No longer tells who reads it. Marks of files that are gone go with them.
    pub fn leave(&mut self, path: &Path) {
        self.followed = self.followed.saturating_sub(1);
        let mask = MaskFlags::FAN_ACCESS;
        let left = self.fanotify.mark(MarkFlags::FAN_MARK_REMOVE, mask, nix::fcntl::AT_FDCWD, Some(path));
        if let Err(error) = left {
            debug!(%error, "a file is not followed any more, because it is not at its place");
        }
    }

    /// Reads what waits.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn read(&mut self) -> io::Result<Acts> {
        let mut read = Acts::default();
        for _ in 0..MAX_READS {
            let length = match nix::unistd::read(self.fanotify.as_fd(), &mut self.buffer) {
                Ok(0) | Err(nix::Error::EAGAIN) => break,
                Ok(length) => length,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let time = BootTime::now();
            for raw in wire::parse(&self.buffer[..length]) {
                if raw.overflow {
                    read.overflows += 1;
                } else if raw.pid != self.own_pid {
                    read.acts.extend(act(raw, time));
                }
            }
        }
        Ok(read)
    }
}

fn act(raw: wire::RawEvent, time: BootTime) -> Option<Act> {
    let file = File::from(raw.file?);
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let path =
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_else(|_| PathBuf::new());
    Some(Act {
        time,
        process: Who::Number { pid: u32::try_from(raw.pid).unwrap_or_default(), alive: raw.alive },
        version: Version::of(&metadata),
        path: path.into_os_string().into_vec(),
        written: raw.operations.contains(Operations::CLOSE),
        read: raw.operations.contains(Operations::READ),
    })
}

/// Whether a directory is on a disk or in memory.
fn is_local(directory: &Path) -> bool {
    /// include/uapi/linux/magic.h and the modules' own; `nix` has no names for these.
    const ZFS: i64 = 0x2FC1_2FC1;
    const BCACHEFS: i64 = 0xCA45_1A4E;
    let Ok(system) = statfs::statfs(directory) else { return false };
    let kind = system.filesystem_type();
    let known = [
        statfs::EXT4_SUPER_MAGIC,
        statfs::XFS_SUPER_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
        statfs::F2FS_SUPER_MAGIC,
    ];
    known.contains(&kind) || [ZFS, BCACHEFS].map(|magic| FsType(magic as _)).contains(&kind)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_the_same_until_its_inode_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        fs::write(&one, "1").unwrap();
        fs::write(&two, "2").unwrap();
        let version = |path: &Path| Version::of(&fs::metadata(path).unwrap());
        assert!(version(&one).is_same_file(&version(&one)));
        assert!(!version(&one).is_same_file(&version(&two)));
        let reused = Version { created: None, changed: (0, 0), ..version(&one) };
        assert!(!version(&one).is_same_file(&reused));
    }

    #[test]
    fn file_systems_of_the_kernels_own_are_not_watched() {
        assert!(!is_local(Path::new("/proc")) && !is_local(Path::new("/sys")));
    }
}
