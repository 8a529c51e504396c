//! The atomic operations that programs use. `core::sync::atomic` lacks them for this target, which is declared without
//! compare-and-swap although the kernel has it since 5.12 (kernel/bpf/verifier.c, `check_atomic`).
//!
//! Kernels before have additions without a result only, and refuse a program that holds anything else. There the others are
//! plain loads and stores: until 5.12 no program is preempted by another (`migrate_disable` disables preemption), so that
//! only programs on other CPUs and interrupts come in between, which touch neither the same counter nor the same slot but
//! for TCP's states: two of those can then get one number.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
#[cfg(not(feature = "before-5-12"))]
use core::intrinsics::{atomic_cxchg, atomic_xchg};

/// Adds one.
///
/// # Safety
///
/// `counter` must be valid and aligned.
#[inline(always)]
pub unsafe fn increment(counter: *mut u64) {
    // SAFETY: by contract.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// Adds `amount`.
///
/// # Safety
///
/// `counter` must be valid and aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: by contract.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Adds one and returns the sum. Not relaxed: LLVM 22 makes `lock +=` of a relaxed addition even where the result is used,
/// and that instruction leaves no result (seen in the disassembly: every record had the same number).
///
/// # Safety
///
/// `counter` must be valid and aligned.
#[inline(always)]
pub unsafe fn next(counter: *mut u64) -> u64 {
    // SAFETY: by contract.
    #[cfg(not(feature = "before-5-12"))]
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(counter, 1) + 1
    }
    // SAFETY: by contract.
    #[cfg(feature = "before-5-12")]
    unsafe {
        increment(counter);
        core::ptr::read_volatile(counter)
    }
}

/// Sets a flag; false when it was set already.
///
/// # Safety
///
/// `flag` must be valid and aligned.
#[inline(always)]
pub unsafe fn claim(flag: *mut u64) -> bool {
    // SAFETY: by contract.
    #[cfg(not(feature = "before-5-12"))]
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(flag, 0, 1).1
    }
    // SAFETY: by contract.
    #[cfg(feature = "before-5-12")]
    unsafe {
        let free = core::ptr::read_volatile(flag) == 0;
        if free {
            core::ptr::write_volatile(flag, 1);
        }
        free
    }
}

/// Clears a flag.
///
/// # Safety
///
/// `flag` must be valid and aligned.
#[inline(always)]
pub unsafe fn release(flag: *mut u64) {
    // SAFETY: by contract.
    #[cfg(not(feature = "before-5-12"))]
    unsafe {
        atomic_xchg::<u64, { AtomicOrdering::Relaxed }>(flag, 0)
    };
    // SAFETY: by contract.
    #[cfg(feature = "before-5-12")]
    unsafe {
        core::ptr::write_volatile(flag, 0);
    }
}
