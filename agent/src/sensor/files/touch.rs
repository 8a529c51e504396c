//! What the eBPF programs report of files, told in the words of the catalogue.

use buildtrail_agent_abi::{FileAction, FileMatch};
use buildtrail_proto::v1::FileWay;

use super::{FileEvent, FileId, FileSensor, Operations, Seen, Who};
use crate::{clock::BootTime, process::ProcessId, sensor::records::FileTouch};

/// `PF_IO_WORKER` and `PF_USER_WORKER` (include/linux/sched.h): threads in which the kernel does a process's `io_uring` work.
const WORKER_FLAGS: u32 = 0x10 | 0x4000;

impl FileSensor {
    /// The event, if the file is a secret.
    pub fn identify(&mut self, process: ProcessId, time: BootTime, touch: FileTouch) -> Option<FileEvent> {
        let operations = Operations::of_action(touch.action)?;
        let file = FileId { device: u64::from(touch.device), inode: touch.inode };
        let found = self.marks.entry_of_touch(&self.fanotify, file, &touch)?;
        let way = way(&touch);
        let seen_path = if touch.name_only { Vec::new() } else { touch.path };
        Some(FileEvent {
            time,
            process: Who::Known(process),
            entry: found.entry,
            path: found.path.unwrap_or_else(|| seen_path.clone()),
            file,
            operations,
            in_jobs_only: found.in_jobs_only,
            seen: Some(Seen { path: seen_path, way, by_name: found.by_name }),
        })
    }
}

/// By the number of the system call, 64-bit or 32-bit (arch/x86/entry/syscalls).
fn way(touch: &FileTouch) -> FileWay {
    let is = |action: FileAction| touch.action == action as u16;
    if is(FileAction::Receive) {
        return if touch.call == 438 { FileWay::ProcessDescriptor } else { FileWay::Socket };
    }
    if !is(FileAction::Open) {
        return FileWay::Unspecified;
    }
    match touch.call {
        _ if touch.task_flags & WORKER_FLAGS != 0 => FileWay::IoUring,
        425..=427 => FileWay::IoUring,
        304 | 342 => FileWay::Handle,
        _ => FileWay::Open,
    }
}

/// Whether the programs saw more than a name that secrets often have.
pub(super) fn is_watched_place(touch: &FileTouch) -> bool {
    touch.matched & (FileMatch::FILE | FileMatch::DIRECTORY) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(action: FileAction, call: u32, task_flags: u32) -> FileTouch {
        FileTouch {
            device: 1,
            inode: 2,
            directory: 3,
            generation: 0,
            action: action as u16,
            matched: FileMatch::FILE,
            call,
            task_flags,
            path: Vec::new(),
            name_only: false,
        }
    }

    #[test]
    fn the_way_to_a_file_follows_from_call_and_thread() {
        let cases = [
            (FileAction::Open, 257, 0, FileWay::Open),
            (FileAction::Open, 5, 0, FileWay::Open),
            (FileAction::Open, 304, 0, FileWay::Handle),
            (FileAction::Open, 426, 0, FileWay::IoUring),
            (FileAction::Open, 0, 0x10, FileWay::IoUring),
            (FileAction::Receive, 47, 0, FileWay::Socket),
            (FileAction::Receive, 438, 0, FileWay::ProcessDescriptor),
            (FileAction::Map, 9, 0, FileWay::Unspecified),
        ];
        for (action, call, flags, expected) in cases {
            assert_eq!(way(&touch(action, call, flags)), expected, "{action:?} in call {call}");
        }
    }
}
