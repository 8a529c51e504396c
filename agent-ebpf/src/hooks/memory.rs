//! Reaching for another process's memory or descriptors.
//!
//! `security_ptrace_access_check` is the one gate behind ptrace, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd` and
//! /proc/PID/{mem,environ,maps,fd,…} (kernel/ptrace.c, `__ptrace_may_access`). Where it cannot be had, the system calls
//! themselves tell, and /proc stays unseen.

use aya_ebpf::{
    macros::{fentry, tracepoint},
    programs::{FEntryContext, TracePointContext},
};
use buildtrail_agent_abi::{Hook, Kind, MemoryMethod, MemoryRecord};

use crate::{
    emit,
    hooks::{registers, unix},
    kread::Object,
    maps::CRITICAL,
};

/// `PTRACE_MODE_NOAUDIT` (include/linux/ptrace.h): a question whose answer changes what /proc shows, not an access.
const NO_AUDIT: u32 = 4;
/// `PTRACE_MODE_ATTACH`
const ATTACH: u32 = 2;
/// Requests of ptrace(2) that begin tracing.
const TRACE_ME: u64 = 0;
const TRACE_ATTACH: u64 = 16;
const TRACE_SEIZE: u64 = 0x4206;
/// Where `struct trace_event_raw_sys_exit` has the result (include/trace/events/syscalls.h).
const RESULT_OFFSET: usize = 16;

/// `security_ptrace_access_check(child, mode)`
#[fentry(function = "security_ptrace_access_check")]
pub fn memory_access(ctx: FEntryContext) -> i32 {
    let (target, mode) = (Object::at(ctx.arg(0)), ctx.arg::<u64>(1) as u32);
    if mode & NO_AUDIT == 0 {
        // SAFETY: an argument of the program.
        let (target_start_boot_time_ns, target_tgid) =
            unsafe { (emit::start_of(target), target.load(|o| &o.task_tgid).unwrap_or(0)) };
        let method = method(call()) as u32;
        let header = emit::header(Kind::Memory, Hook::Memory);
        emit::emit(&CRITICAL, header, Hook::Memory, |header| MemoryRecord {
            header,
            target_start_boot_time_ns,
            target_tgid,
            method,
            mode,
            result: 0,
        });
    }
    0
}

/// `security_ptrace_traceme(parent)`: the current process gives itself to its parent.
#[fentry(function = "security_ptrace_traceme")]
pub fn memory_traced(ctx: FEntryContext) -> i32 {
    // SAFETY: an argument of the program.
    unsafe { report_trace_me(Object::at(ctx.arg(0)), Hook::Traced, 0) };
    0
}

/// The end of ptrace, `process_vm_readv`, `process_vm_writev` and `pidfd_getfd`, where security functions cannot be had.
#[tracepoint]
pub fn memory_call(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset lies within the tracepoint's record.
    if let Ok(result) = unsafe { ctx.read_at::<i64>(RESULT_OFFSET) } {
        on_call(result as i32);
    }
    0
}

#[inline(always)]
fn on_call(result: i32) -> Option<()> {
    let method = method(call());
    let first = registers::first_argument()?;
    let target_tgid = match method {
        MemoryMethod::Ptrace if first == TRACE_ATTACH || first == TRACE_SEIZE => {
            registers::second_argument()? as u32
        }
        MemoryMethod::Ptrace if first == TRACE_ME => return on_trace_me(result),
        MemoryMethod::ReadVector | MemoryMethod::WriteVector => first as u32,
        MemoryMethod::DescriptorOfProcess => process_of(first as u32).unwrap_or(0),
        _ => return None,
    };
    let header = emit::header(Kind::Memory, Hook::Memory);
    emit::emit(&CRITICAL, header, Hook::Memory, |header| MemoryRecord {
        header,
        target_start_boot_time_ns: 0,
        target_tgid,
        method: method as u32,
        mode: ATTACH,
        // A number of bytes is no error.
        result: if result < 0 { result } else { 0 },
    });
    Some(())
}

#[inline(always)]
fn on_trace_me(result: i32) -> Option<()> {
    // SAFETY: the verifier knows the running task.
    unsafe {
        let parent = emit::current().load_pointer(|o| &o.task_real_parent)?;
        report_trace_me(parent, Hook::Memory, result);
    }
    Some(())
}

/// The running process gives itself to `parent`, who so gets access.
///
/// # Safety
///
/// As for [`Object::load`].
#[inline(always)]
unsafe fn report_trace_me(parent: Object, hook: Hook, result: i32) {
    let mut header = emit::header(Kind::Memory, hook);
    let (child, child_start) = (header.tgid, header.start_boot_time_ns);
    // SAFETY: by contract.
    (header.tgid, header.start_boot_time_ns) =
        unsafe { (parent.load(|o| &o.task_tgid).unwrap_or(0), emit::start_of(parent)) };
    emit::emit(&CRITICAL, header, hook, |header| MemoryRecord {
        header,
        target_start_boot_time_ns: child_start,
        target_tgid: child,
        method: MemoryMethod::Ptrace as u32,
        mode: ATTACH,
        result,
    });
}

/// The process behind a process descriptor.
#[inline(always)]
fn process_of(descriptor: u32) -> Option<u32> {
    let file = unix::file_of(descriptor)?;
    // Process descriptors became files of their own file system in Linux 6.9 (fs/pidfs.c).
    let pid = if Object::at(0).address_of(|o| &o.pid_file_number).is_some() {
        file.follow(|o| &o.file_inode)?.follow(|o| &o.inode_private)?
    } else {
        file.follow(|o| &o.file_private_data)?
    };
    unix::number_of(pid)
}

#[inline(always)]
fn call() -> u32 {
    registers::call().unwrap_or(0) as u32
}

/// By the number of the system call, 64-bit or 32-bit (arch/x86/entry/syscalls). The 32-bit number of ptrace is that of
/// msync among the 64-bit ones, which leads to no access.
#[inline(always)]
fn method(call: u32) -> MemoryMethod {
    match call {
        101 | 26 => MemoryMethod::Ptrace,
        310 | 347 => MemoryMethod::ReadVector,
        311 | 348 => MemoryMethod::WriteVector,
        438 => MemoryMethod::DescriptorOfProcess,
        _ => MemoryMethod::Proc,
    }
}
