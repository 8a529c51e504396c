//! Where records that are too large for the stack are put together.
//!
//! A slot is owned by the one program that claimed it: a program can be preempted by another on the same CPU, so per-CPU
//! memory would be shared.

use aya_ebpf::btf_maps::Array;

use crate::{atomic, emit};

/// Slots tried before a record counts as lost. Where a slot cannot be claimed atomically, each CPU has one of its own.
const TRIES: u32 = if cfg!(feature = "before-5-12") { 1 } else { 16 };
/// Slots between those of neighbouring CPUs.
const SPREAD: u32 = if cfg!(feature = "before-5-12") { 1 } else { 4 };

/// A map value whose first member, of 64 bits, says that it is owned.
///
/// # Safety
///
/// The type must be `repr(C)` and begin with that member, which nothing else touches.
pub unsafe trait Slot {}

/// Finds a free slot among `slots` and owns it.
#[inline(always)]
pub fn claim<T: Slot, const SLOTS: usize>(map: &Array<T, SLOTS>, slots: u32) -> Option<(u32, *mut T)> {
    let start = emit::processor() * SPREAD;
    if cfg!(feature = "before-5-12") && start >= slots {
        return None;
    }
    for attempt in 0..TRIES {
        let index = (start + attempt) % slots;
        let slot: *mut T = map.get_ptr_mut(index)?;
        // SAFETY: a valid map value, and by the trait's contract a flag is its first member.
        if unsafe { atomic::claim(slot.cast()) } {
            return Some((index, slot));
        }
    }
    None
}

/// Gives a slot back.
///
/// # Safety
///
/// The caller must own it.
#[inline(always)]
pub unsafe fn release<T: Slot>(slot: *mut T) {
    // SAFETY: as above.
    unsafe { atomic::release(slot.cast()) };
}
