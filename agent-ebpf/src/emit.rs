//! Headers, counters and the way into the ring buffers.

use aya_ebpf::{
    btf_maps::RingBuf,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_smp_processor_id,
        generated::bpf_get_current_task, generated::bpf_ktime_get_boot_ns,
    },
};
use buildtrail_agent_abi::{Counters, Header, Hook, Kind};

use crate::{
    atomic,
    kread::Object,
    maps::{COUNTERS, User},
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

/// The running task.
#[inline(always)]
pub fn current() -> Object {
    // SAFETY: a helper without arguments.
    Object::at(unsafe { bpf_get_current_task() })
}

#[inline(always)]
pub fn boot_time_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// When the task's process started.
#[inline(always)]
pub fn start_of(task: Object) -> u64 {
    task.follow(|o| &o.task_group_leader)
        .and_then(|leader| leader.read(|o| &o.task_start_boottime))
        .unwrap_or(0)
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
    User {
        start_boot_time_ns: start_of(task),
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid,
        effective_uid: task
            .follow(|o| &o.task_cred)
            .and_then(|cred| cred.read(|o| &o.cred_euid))
            .unwrap_or(uid),
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
            entry.submit(0);
            count(hook, Outcome::Emitted);
        }
        None => count(hook, Outcome::RingFull),
    }
}
