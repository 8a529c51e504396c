//! Who opens what a runner's /proc directory shows of its memory and descriptors, where security functions cannot be had.
//!
//! In: runners, as they become known. Out: [`Look`]s. A fanotify mark on the directory tells opens of what is in it; the
//! directory is held open, because a mark goes when the kernel forgets its inode. Must never look at a runner itself.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use tracing::debug;

use super::files::{Who, wire};
use crate::clock::BootTime;

/// Files that show memory, and files that show what is in it.
const MEMORY: &[&[u8]] = &[b"mem"];
const INSPECTION: &[&[u8]] = &[
    b"auxv",
    b"environ",
    b"fd",
    b"fdinfo",
    b"io",
    b"map_files",
    b"maps",
    b"numa_maps",
    b"pagemap",
    b"personality",
    b"smaps",
    b"smaps_rollup",
    b"stack",
    b"syscall",
];

/// Somebody opened a file in a runner's /proc directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When the agent read of it.
    pub time: BootTime,
    /// Who.
    pub process: Who,
    /// The runner.
    pub runner: u32,
    /// Its memory itself.
    pub memory: bool,
}

/// Watches runners.
#[derive(Debug)]
pub(super) struct RunnerSensor {
    fanotify: Fanotify,
    held: HashMap<u32, File>,
    own_pid: i32,
    buffer: Vec<u8>,
}

impl RunnerSensor {
    pub(super) fn new() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_REPORT_PIDFD;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        Ok(Self { fanotify, held: HashMap::new(), own_pid, buffer: vec![0; 4096] })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }

    /// Watches this runner until it is forgotten.
    pub(super) fn watch(&mut self, pid: u32) {
        let path = format!("/proc/{pid}");
        let mask = MaskFlags::FAN_OPEN | MaskFlags::FAN_ONDIR | MaskFlags::FAN_EVENT_ON_CHILD;
        let marked = File::open(&path).and_then(|directory| {
            self.fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(path.as_str()))?;
            Ok(directory)
        });
        match marked {
            Ok(directory) => {
                self.held.insert(pid, directory);
            }
            Err(error) => debug!(pid, %error, "a runner's /proc directory cannot be watched"),
        }
    }

    /// The runner has ended.
    pub(super) fn forget(&mut self, pid: u32) {
        self.held.remove(&pid);
    }

    /// Reads what waits.
    pub(super) fn read(&mut self) -> Vec<Look> {
        let mut looks = Vec::new();
        while let Ok(length @ 1..) = nix::unistd::read(&self.fanotify, &mut self.buffer) {
            let time = BootTime::now();
            for event in wire::parse(&self.buffer[..length]) {
                if event.pid != self.own_pid
                    && let Some((runner, memory)) = event.file.and_then(|file| shown(file.as_raw_fd()))
                {
                    let pid = u32::try_from(event.pid).unwrap_or_default();
                    looks.push(Look {
                        time,
                        process: Who::Number { pid, alive: event.alive },
                        runner,
                        memory,
                    });
                }
            }
        }
        looks
    }
}

/// Whose file it is, and whether it is memory itself; `None` for what everybody may read.
fn shown(descriptor: i32) -> Option<(u32, bool)> {
    let path = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).ok()?;
    let rest = path.as_os_str().as_bytes().strip_prefix(b"/proc/")?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (pid, name) = (std::str::from_utf8(&rest[..slash]).ok()?, &rest[slash + 1..]);
    let memory = MEMORY.contains(&name);
    (memory || INSPECTION.contains(&name)).then_some((pid.parse().ok()?, memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_the_right_to_trace_counts() {
        let of = |path: &str| shown(File::open(path).unwrap().as_raw_fd());
        let pid = std::process::id();
        assert_eq!(of(&format!("/proc/{pid}/environ")), Some((pid, false)));
        assert_eq!(of(&format!("/proc/{pid}/mem")), Some((pid, true)));
        assert_eq!(of(&format!("/proc/{pid}/stat")), None);
        assert_eq!(of("/proc/uptime"), None);
    }
}
