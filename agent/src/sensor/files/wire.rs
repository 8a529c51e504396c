//! Events as the kernel writes them (fanotify(7)): a fixed part, then information records, of which the process's file
//! descriptor is one. Every descriptor that comes is owned, and so closed, here.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::libc;

use super::{Operations, changes::Handle};

/// `struct fanotify_event_metadata`
const METADATA_BYTES: usize = 24;
/// `FAN_EVENT_INFO_TYPE_FID`, `_DFID_NAME`, `_PIDFD`
const INFO_FILE: u8 = 1;
const INFO_NAME: u8 = 2;
const INFO_PIDFD: u8 = 4;
/// An information record's header, and the file system's id behind it.
const INFO_HEADER_BYTES: usize = 4;
const SYSTEM_BYTES: usize = 8;

/// One event.
#[derive(Debug)]
pub(crate) struct RawEvent {
    /// The file; `None` for an overflow, and in a group that tells handles.
    pub(crate) file: Option<OwnedFd>,
    pub(crate) pid: i32,
    pub(crate) alive: bool,
    pub(crate) operations: Operations,
    /// The file's handle, with its file system.
    pub(crate) handle: Option<Handle>,
    /// The directory's handle and a name in it.
    pub(crate) name: Option<(Handle, Vec<u8>)>,
    pub(crate) overflow: bool,
}

/// Splits what one read returned. Stops at bytes that are no event, which the kernel never writes.
pub(crate) fn parse(mut bytes: &[u8]) -> Vec<RawEvent> {
    let mut events = Vec::new();
    while let Some((event, rest)) = split_event(bytes) {
        bytes = rest;
        events.push(event_of(event));
    }
    events
}

fn split_event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    if length < METADATA_BYTES {
        return None;
    }
    bytes.split_at_checked(length)
}

fn event_of(event: &[u8]) -> RawEvent {
    let mask = u64_at(event, 8).unwrap_or_default();
    let (mut pidfd, mut handle, mut name) = (None, None, None);
    for (kind, record) in records_of(event) {
        match kind {
            INFO_PIDFD => pidfd = i32_at(record, INFO_HEADER_BYTES),
            INFO_FILE => handle = handle_in(record).map(|(handle, _)| handle),
            INFO_NAME => name = handle_in(record).map(|(handle, rest)| (handle, name_in(rest))),
            _ => {}
        }
    }
    RawEvent {
        file: i32_at(event, 16).and_then(own),
        pid: i32_at(event, 20).unwrap_or_default(),
        // Without the record (no pidfd could be made) the process is not known to have ended.
        alive: pidfd.is_none_or(|pidfd| own(pidfd).is_some()),
        operations: Operations::OPEN
            .when(mask & libc::FAN_OPEN != 0)
            .union(Operations::READ.when(mask & libc::FAN_ACCESS != 0))
            .union(Operations::WRITE.when(mask & libc::FAN_MODIFY != 0))
            .union(Operations::CLOSE.when(mask & libc::FAN_CLOSE != 0))
            .union(Operations::ATTRIBUTES.when(mask & libc::FAN_ATTRIB != 0))
            .union(Operations::RENAME.when(mask & libc::FAN_MOVE_SELF != 0))
            .union(Operations::UNLINK.when(mask & libc::FAN_DELETE != 0))
            .union(Operations::REPLACE.when(mask & libc::FAN_MOVED_TO != 0)),
        handle,
        name,
        overflow: mask & libc::FAN_Q_OVERFLOW != 0,
    }
}

/// The information records behind the fixed part, each with its kind and header. A negative process descriptor stands
/// for a process that has ended.
fn records_of(event: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = u16_at(event, 6).and_then(|at| event.get(usize::from(at)..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let kind = *rest.first()?;
        let length = usize::from(u16_at(rest, 2)?).max(INFO_HEADER_BYTES);
        let (record, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some((kind, record))
    })
}

/// File system, kind and bytes of the handle in a record, and what follows it.
fn handle_in(record: &[u8]) -> Option<(Handle, &[u8])> {
    let at = INFO_HEADER_BYTES + SYSTEM_BYTES;
    let length = u32_at(record, at)? as usize;
    let (handle, rest) = record.get(at + 4..)?.split_at_checked(4 + length)?;
    Some(([&record[INFO_HEADER_BYTES..at], handle].concat(), rest))
}

/// Up to the zero.
fn name_in(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn own(descriptor: i32) -> Option<OwnedFd> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: the kernel has just made this descriptor for this process, and nothing else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(mask: u64, pid: i32, pidfd: Option<i32>) -> Vec<u8> {
        let info: Vec<u8> = pidfd.map_or_else(Vec::new, |pidfd| {
            [&[INFO_PIDFD, 0][..], &8_u16.to_ne_bytes(), &pidfd.to_ne_bytes()].concat()
        });
        let length = u32::try_from(METADATA_BYTES + info.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(info);
        bytes
    }

    #[test]
    fn events_and_their_processes_are_told_apart() {
        let bytes = [event(libc::FAN_OPEN | libc::FAN_ACCESS, 7, Some(-1)), event(libc::FAN_MODIFY, 8, None)]
            .concat();
        let events = parse(&bytes);
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].pid, events[0].alive), (7, false));
        assert_eq!(events[0].operations, Operations::OPEN.union(Operations::READ));
        assert_eq!((events[1].pid, events[1].alive, events[1].operations), (8, true, Operations::WRITE));
    }

    #[test]
    fn an_overflow_is_no_file() {
        let events = parse(&event(libc::FAN_Q_OVERFLOW, 0, None));
        assert!(events[0].overflow && events[0].file.is_none());
    }

    #[test]
    fn bytes_cut_anywhere_never_panic() {
        let bytes = event(libc::FAN_OPEN, 7, Some(-1));
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_empty());
        }
    }
}
