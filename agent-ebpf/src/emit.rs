//! Headers, counters and the way into the ring buffers.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::RingBuf,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_smp_processor_id,
        generated::{bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query},
    },
};
use buildtrail_agent_abi::{Counters, Header, Hook, Kind, Reader, WAKE_SLACK};

use crate::{
    atomic,
    kread::Object,
    maps::{COUNTERS, READER, User},
};

/// What became of a record.
pub enum Outcome {
    Emitted,
    RingFull,
    NoSlot,
    Unreadable,
}

#[inline(always)]
pub fn count(hook: Hook, outcome: Outcome) {
    let Some(counters) = COUNTERS.get_ptr_mut(u32::from(hook as u16)) else { return };
    let counters: *mut Counters = counters;
    // SAFETY: the map's value is valid for the program's run; atomic because a program can be preempted by another.
    unsafe {
        atomic::increment(match outcome {
            Outcome::Emitted => &raw mut (*counters).emitted,
            Outcome::RingFull => &raw mut (*counters).lost_ring_full,
            Outcome::NoSlot => &raw mut (*counters).lost_no_slot,
            Outcome::Unreadable => &raw mut (*counters).lost_unreadable,
        });
    }
}

/// The running task, as the verifier knows it: its members can be loaded.
#[cfg(not(feature = "before-5-12"))]
#[inline(always)]
pub fn current() -> Object {
    use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
    // SAFETY: a helper without arguments.
    Object::at(unsafe { bpf_get_current_task_btf() } as u64)
}

/// The running task: the helper that tells its type came with 5.11.
#[cfg(feature = "before-5-12")]
#[inline(always)]
pub fn current() -> Object {
    use aya_ebpf::helpers::generated::bpf_get_current_task;
    // SAFETY: a helper without arguments.
    Object::at(unsafe { bpf_get_current_task() })
}

#[inline(always)]
pub fn boot_time_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// When the task's process started.
///
/// # Safety
///
/// As for [`Object::load`].
#[inline(always)]
pub unsafe fn start_of(task: Object) -> u64 {
    // SAFETY: by contract.
    unsafe {
        task.load_pointer(|o| &o.task_group_leader)
            .and_then(|leader| leader.load(|o| &o.task_start_boottime))
            .unwrap_or(0)
    }
}

/// Takes the next number of this hook on this CPU. Each number is a record that is emitted or counted as lost.
#[inline(always)]
fn next_sequence(hook: Hook) -> u64 {
    let Some(counters) = COUNTERS.get_ptr_mut(u32::from(hook as u16)) else { return 0 };
    let counters: *mut Counters = counters;
    // SAFETY: as in `count`.
    unsafe { atomic::next(&raw mut (*counters).happened) }
}

/// A header about the running task. It begins a record: call [`count`] once after it.
#[inline(always)]
pub fn header(kind: Kind, hook: Hook) -> Header {
    let mut header = user_header(&user(), kind, hook);
    header.thread = bpf_get_current_pid_tgid() as u32;
    header
}

/// The running process.
#[inline(always)]
pub fn user() -> User {
    let task = current();
    let uid = bpf_get_current_uid_gid() as u32;
    // SAFETY: the verifier knows the running task.
    let (start_boot_time_ns, effective_uid) = unsafe {
        let cred = task.load_pointer(|o| &o.task_cred);
        (start_of(task), cred.and_then(|cred| cred.load(|o| &o.cred_euid)).unwrap_or(uid))
    };
    User {
        start_boot_time_ns,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid,
        effective_uid,
        padding: 0,
    }
}

/// The process of a header.
#[inline(always)]
pub fn user_of(header: &Header) -> User {
    User {
        start_boot_time_ns: header.start_boot_time_ns,
        tgid: header.tgid,
        uid: header.uid,
        effective_uid: header.effective_uid,
        padding: 0,
    }
}

/// A header about a process that need not be the running one. It begins a record: call [`count`] once after it.
#[inline(always)]
pub fn user_header(user: &User, kind: Kind, hook: Hook) -> Header {
    Header {
        kind: kind as u16,
        hook: hook as u16,
        tgid: user.tgid,
        boot_time_ns: boot_time_ns(),
        start_boot_time_ns: user.start_boot_time_ns,
        uid: user.uid,
        effective_uid: user.effective_uid,
        sequence: next_sequence(hook),
        cpu: processor(),
        thread: 0,
    }
}

#[inline(always)]
pub fn processor() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// How soon the agent has to know.
pub enum Urgency {
    /// At once: it looks at what can be gone in a millisecond.
    Now,
    /// With the others.
    Soon,
}

/// Reserves room for `T`, fills it in place and submits it.
#[inline(always)]
pub fn emit<T: 'static, const BYTES: usize>(
    ring: &RingBuf<u8, BYTES>,
    header: Header,
    hook: Hook,
    record: impl FnOnce(Header) -> T,
) {
    match ring.reserve_untyped::<T>(0) {
        Some(mut entry) => {
            entry.write(record(header));
            entry.submit(waking(ring, 0, size_of::<T>() as u64));
            count(hook, Outcome::Emitted);
        }
        None => count(hook, Outcome::RingFull),
    }
}

/// Copies the first `bytes` of a record that was put together elsewhere into the ring.
///
/// # Safety
///
/// `record` must be valid for `bytes`, in a way that the verifier sees.
#[inline(always)]
pub unsafe fn copy<const BYTES: usize>(
    ring: &RingBuf<u8, BYTES>,
    record: *mut c_void,
    bytes: u64,
    urgency: Urgency,
) -> Outcome {
    let flags = if matches!(urgency, Urgency::Now) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        waking(ring, bytes, bytes)
    };
    // SAFETY: by contract.
    let result = unsafe { bpf_ringbuf_output((&raw const *ring).cast_mut().cast(), record, bytes, flags) };
    if result == 0 { Outcome::Emitted } else { Outcome::RingFull }
}

/// Flags for a record of so many `bytes`, of which `coming` are not yet in the ring.
///
/// Waking costs more than the record itself: only the first record after a pause wakes, and the one by which much waits.
#[inline(always)]
pub fn waking<const BYTES: usize>(ring: &RingBuf<u8, BYTES>, coming: u64, bytes: u64) -> u64 {
    let Some(reader) = READER.get_ptr_mut(0) else { return 0 };
    let reader: *mut Reader = reader;
    // SAFETY: the map's value is valid for the program's run; the helper takes the map.
    let wakes = unsafe {
        if core::ptr::read_volatile(&raw const (*reader).sleeping) != 0 {
            atomic::release(&raw mut (*reader).sleeping);
            true
        } else {
            let ring = (&raw const *ring).cast_mut().cast();
            let waiting = bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) + coming;
            let mark = core::ptr::read_volatile(&raw const (*reader).mark);
            waiting >= mark && waiting < mark + bytes + WAKE_SLACK
        }
    };
    u64::from(if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
