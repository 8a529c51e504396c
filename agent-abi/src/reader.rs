//! When a record wakes the agent: the first one after a pause, and the one that makes much wait. In between the agent looks
//! by itself every few milliseconds.

/// Most bytes that wait in a ring before a record wakes the agent.
const MOST_WAITING: u32 = 64 * 1024;
/// Records that make more than the mark wait, but not by so much, wake too: of two that cross it at once on two processors
/// each can see the other's bytes.
pub const WAKE_SLACK: u64 = 2048;

/// Written by both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Reader {
    /// 1: the agent looks only when it is woken. The record that wakes it writes 0.
    pub sleeping: u64,
    /// Bytes in one ring at which a record wakes the agent.
    pub mark: u64,
}

/// The mark for rings of at least `bytes`.
#[must_use]
pub const fn wake_mark(bytes: u32) -> u64 {
    let quarter = bytes / 4;
    (if quarter < MOST_WAITING { quarter } else { MOST_WAITING }) as u64
}

const _: () = assert!(size_of::<Reader>() == 16);
