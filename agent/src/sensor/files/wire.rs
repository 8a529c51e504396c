//! Events as the kernel writes them (fanotify(7)): a fixed part, then information records, of which the process's file
//! descriptor is one. Every descriptor that comes is owned, and so closed, here.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::libc;

use super::Operations;

/// `struct fanotify_event_metadata`
const METADATA_BYTES: usize = 24;
/// `FAN_EVENT_INFO_TYPE_PIDFD`
const INFO_PIDFD: u8 = 4;

/// One event.
#[derive(Debug)]
pub(super) struct RawEvent {
    /// The file; `None` for an overflow.
    pub(super) file: Option<OwnedFd>,
    pub(super) pid: i32,
    pub(super) alive: bool,
    pub(super) operations: Operations,
    pub(super) overflow: bool,
}

/// Splits what one read returned. Stops at bytes that are no event, which the kernel never writes.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<RawEvent> {
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
    let pidfd = pidfd_of(event);
    RawEvent {
        file: i32_at(event, 16).and_then(own),
        pid: i32_at(event, 20).unwrap_or_default(),
        // Without the record (no pidfd could be made) the process is not known to have ended.
        alive: pidfd.is_none_or(|pidfd| own(pidfd).is_some()),
        operations: Operations::OPEN
            .when(mask & libc::FAN_OPEN != 0)
            .union(Operations::READ.when(mask & libc::FAN_ACCESS != 0))
            .union(Operations::WRITE.when(mask & libc::FAN_MODIFY != 0))
            .union(Operations::CLOSE.when(mask & libc::FAN_CLOSE != 0)),
        overflow: mask & libc::FAN_Q_OVERFLOW != 0,
    }
}

/// The process's descriptor, negative when it has ended.
fn pidfd_of(event: &[u8]) -> Option<i32> {
    let mut records = event.get(usize::from(u16_at(event, 6)?)..)?;
    loop {
        let kind = *records.first()?;
        let length = usize::from(u16_at(records, 2)?);
        if kind == INFO_PIDFD {
            return i32_at(records, 4);
        }
        records = records.get(length.max(4)..)?;
    }
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
