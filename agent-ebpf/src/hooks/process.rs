//! Birth and death of processes.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use buildtrail_agent_abi::{ExitRecord, ForkRecord, Hook, Kind, ProcessKey};

use crate::{
    emit,
    kread::Object,
    maps::{CRITICAL, MEMBERS, RUNNERS},
};

/// `sched_process_fork(parent, child)`, include/trace/events/sched.h. Runs in the creator, before the child can run.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    on_fork(Object::at(ctx.arg(1)));
    0
}

#[inline(always)]
fn on_fork(child: Object) {
    // SAFETY: an argument of the program.
    let (Some(tgid), Some(pid)) =
        (unsafe { (child.load::<u32>(|o| &o.task_tgid), child.load::<u32>(|o| &o.task_pid)) })
    else {
        return;
    };
    if tgid != pid {
        // A thread: it belongs to its process.
        return;
    }
    let header = emit::header(Kind::Fork, Hook::Fork);
    // SAFETY: as above.
    let start = unsafe { child.load(|o| &o.task_start_boottime) }.unwrap_or(0);
    inherit(ProcessKey::new(header.tgid, header.start_boot_time_ns), ProcessKey::new(tgid, start));
    emit::emit(&CRITICAL, header, Hook::Fork, |header| ForkRecord {
        header,
        child_start_boot_time_ns: start,
        child_tgid: tgid,
        child_parent_tgid: parent_of(child),
    });
}

/// A runner's child is the root of what comes from it; its descendants have the same root.
#[inline(always)]
fn inherit(creator: ProcessKey, child: ProcessKey) {
    // SAFETY: the references are not kept.
    let root = unsafe {
        if RUNNERS.get(ProcessKey::runner(creator.tgid, creator.start_boot_time_ns)).is_some() {
            child
        } else {
            match MEMBERS.get(creator) {
                Some(root) => *root,
                None => return,
            }
        }
    };
    // When the table is full the agent still knows it from the record; only a later agent would not.
    let _ = MEMBERS.insert(child, root, 0);
}

/// The process that would be told of `task`'s end.
#[inline(always)]
pub fn parent_of(task: Object) -> u32 {
    task.follow(|o| &o.task_real_parent).and_then(|parent| parent.read(|o| &o.task_tgid)).unwrap_or(0)
}

/// `sched_process_exit(task[, group_dead])`: for every thread, however it ends. `signal->live` has been decremented
/// before (kernel/exit.c, `do_exit`), so the last thread sees zero.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    on_exit(Object::at(ctx.arg(0)));
    0
}

#[inline(always)]
fn on_exit(task: Object) {
    // SAFETY: an argument of the program.
    let live = unsafe {
        task.load_pointer(|o| &o.task_signal).and_then(|signal| signal.load::<u32>(|o| &o.signal_live))
    };
    if live.unwrap_or(0) != 0 {
        return;
    }
    emit::emit(&CRITICAL, emit::header(Kind::Exit, Hook::Exit), Hook::Exit, |header| ExitRecord {
        header,
        exit_code: task.read(|o| &o.task_exit_code).unwrap_or(0),
        padding: 0,
    });
}
