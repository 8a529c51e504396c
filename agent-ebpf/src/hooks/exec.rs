//! Program execution: what runs, with which arguments, and which environment variables it was given.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
        },
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::warn;
use buildtrail_agent_abi::{
    EXEC_ARGUMENT_BYTES, EXEC_DATA_BYTES, EXEC_FILENAME_BYTES, ExecFlags, ExecRecord, Hook, Kind, ProcessKey,
    RUNNER_NAME_BYTES, RunnerName, VARIABLE_NAME_BYTES, VariableName,
};

use crate::{
    emit::{self, Outcome, Urgency},
    hooks::process::parent_of,
    kread::Object,
    maps::{
        CHUNK_BYTES, CRITICAL, EXEC_SLOTS, IDENTITY_VARIABLES, MEMBERS, Name, RUNNER_NAMES, RUNNERS, SLOTS,
        Slot, Walk,
    },
    slots,
};

/// Strides through the environment, and steps of each: 256 KiB of it, or 2,048 variables.
const ENVIRONMENT_STRIDES: u32 = 64;
const STRIDE_STEPS: u32 = 32;
/// The record without its variable data.
const FIXED_BYTES: usize = size_of::<ExecRecord>() - EXEC_DATA_BYTES;

/// `sched_process_exec(task, old_pid, bprm)`, include/trace/events/sched.h. Runs after the point of no return, so failed
/// executions are not seen; the new address space belongs to this one thread, so nothing can change it meanwhile.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let of_runner = note_runner(Object::at(ctx.arg(2))).is_some();
    if !on_exec(Object::at(ctx.arg(0)), Object::at(ctx.arg(2)), of_runner) {
        warn!(&ctx, "an execution of process {} is lost: no slot is free", bpf_get_current_pid_tgid() >> 32);
    }
    0
}

/// A process that executes a runner's program is one, before it can create another, unless it works for a job. Whether the
/// program is really a runner's is the agent's to say: by a name alone nobody gets a job.
#[inline(always)]
fn note_runner(bprm: Object) -> Option<()> {
    let entry = bprm.follow(|o| &o.binprm_file)?.follow(|o| &o.file_dentry)?;
    let name: u64 = entry.read(|o| &o.dentry_name)?;
    let mut key: RunnerName = [0; RUNNER_NAME_BYTES];
    // SAFETY: destination and size are the key; the helper checks the source.
    let read = unsafe {
        bpf_probe_read_kernel_str(key.as_mut_ptr().cast(), RUNNER_NAME_BYTES as u32, name as *const c_void)
    };
    // SAFETY: the references are not kept.
    unsafe {
        if read <= 0 || RUNNER_NAMES.get(key).is_none() {
            return None;
        }
        let (process, start) = (bpf_get_current_pid_tgid() >> 32, emit::start_of(emit::current()));
        let process = ProcessKey::new(process as u32, start);
        if MEMBERS.get(process).is_none_or(|root| *root == process) {
            let _ = RUNNERS.insert(ProcessKey::runner(process.tgid, start), 1, 0);
        }
    }
    Some(())
}

/// False when no slot was free.
#[inline(always)]
fn on_exec(task: Object, bprm: Object, of_runner: bool) -> bool {
    let header = emit::header(Kind::Exec, Hook::Exec);
    let Some((index, slot)) = slots::claim(&EXEC_SLOTS, SLOTS as u32) else {
        emit::count(Hook::Exec, Outcome::NoSlot);
        return false;
    };
    // SAFETY: this program owns the slot.
    unsafe { (*slot).record.header = header };
    let used = assemble(task, bprm, index, slot);
    let process = ProcessKey::new(header.tgid, header.start_boot_time_ns);
    // SAFETY: the reference is not kept.
    let in_job = unsafe { MEMBERS.get(process) }.is_some();
    // Of a job's program the agent looks up the working directory and the path, before the program ends.
    let urgency = if in_job || of_runner { Urgency::Now } else { Urgency::Soon };
    // SAFETY: `slot` is a valid map value that this program owns; the size is bounded by the record.
    let outcome = unsafe {
        emit::copy(&CRITICAL, (&raw mut (*slot).record).cast(), (FIXED_BYTES + used) as u64, urgency)
    };
    // SAFETY: as above.
    unsafe { slots::release(slot) };
    emit::count(Hook::Exec, outcome);
    true
}

/// Fills the slot's record; returns the bytes of variable data.
#[inline(always)]
fn assemble(task: Object, bprm: Object, index: u32, slot: *mut Slot) -> usize {
    // SAFETY: the caller owns the slot.
    let (record, walk) = unsafe { (&mut (*slot).record, &raw mut (*slot).walk) };
    record.parent_tgid = parent_of(task);
    record.flags = describe_file(record, bprm);

    let filename = read_filename(record, bprm);
    record.filename_length = filename as u32;

    let mm = task.follow(|o| &o.task_mm);
    let arguments = mm.and_then(|mm| read_arguments(record, filename, mm)).unwrap_or_else(|| {
        record.flags |= ExecFlags::UNREADABLE;
        0
    });
    record.arguments_length = arguments as u32;

    let start = filename + arguments;
    let end =
        mm.and_then(|mm| read_environment(record, walk, start as u32, index, mm)).unwrap_or_else(|| {
            record.flags |= ExecFlags::UNREADABLE;
            start
        });
    record.environment_length = end.wrapping_sub(start) as u32;
    end
}

/// Device and inode of the file that now runs; returns its flags.
#[inline(always)]
fn describe_file(record: &mut ExecRecord, bprm: Object) -> u32 {
    let inode = bprm.follow(|o| &o.binprm_file).and_then(|file| file.follow(|o| &o.file_inode));
    let Some(inode) = inode else {
        record.inode = 0;
        record.device = 0;
        return 0;
    };
    record.inode = inode.read(|o| &o.inode_number).unwrap_or(0);
    let super_block = inode.follow(|o| &o.inode_super_block);
    record.device = super_block.and_then(|sb| sb.read(|o| &o.super_block_device)).unwrap_or(0);
    if inode.read::<u32>(|o| &o.inode_links) == Some(0) { ExecFlags::DELETED } else { 0 }
}

#[inline(always)]
fn read_filename(record: &mut ExecRecord, bprm: Object) -> usize {
    let Some(address) = bprm.read::<u64>(|o| &o.binprm_filename) else { return 0 };
    // SAFETY: destination and size lie within the record; the helper checks the source.
    let read = unsafe {
        bpf_probe_read_kernel_str(
            record.data.as_mut_ptr().cast(),
            EXEC_FILENAME_BYTES as u32,
            address as *const c_void,
        )
    };
    if read <= 0 || read > EXEC_FILENAME_BYTES as i64 { 0 } else { read as usize }
}

#[inline(always)]
fn read_arguments(record: &mut ExecRecord, at: usize, mm: Object) -> Option<usize> {
    let from = mm.read::<u64>(|o| &o.mm_arg_start)?;
    let to = mm.read::<u64>(|o| &o.mm_arg_end)?;
    let mut length = to.wrapping_sub(from);
    if length > EXEC_ARGUMENT_BYTES as u64 {
        record.flags |= ExecFlags::ARGUMENTS_CUT;
        length = EXEC_ARGUMENT_BYTES as u64;
    }
    if at > EXEC_FILENAME_BYTES {
        return None;
    }
    // SAFETY: `at` and `length` are bounded above so that the destination lies within the record.
    let result = unsafe {
        bpf_probe_read_user(record.data.as_mut_ptr().add(at).cast(), length as u32, from as *const c_void)
    };
    if result == 0 { Some(length as usize) } else { None }
}

/// Copies names, and values of the allow-list; returns where the data ends. `walk` is the slot's.
#[inline(always)]
fn read_environment(
    record: &mut ExecRecord,
    walk: *mut Walk,
    out: u32,
    slot: u32,
    mm: Object,
) -> Option<usize> {
    let (at, end) = (mm.read(|o| &o.mm_env_start)?, mm.read(|o| &o.mm_env_end)?);
    // SAFETY: the caller owns the slot.
    unsafe { *walk = Walk { at, end, out, skipping: 0, flags: 0, name_length: 0 } };
    for _ in 0..ENVIRONMENT_STRIDES {
        if exec_stride(slot) != 0 {
            break;
        }
    }
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    record.flags |= walk.flags;
    if walk.at < walk.end {
        record.flags |= ExecFlags::ENVIRONMENT_CUT;
    }
    let end = walk.out as usize;
    if end > EXEC_DATA_BYTES { None } else { Some(end) }
}

/// Some variables. Returns 1 to stop. A global function is verified once, on its own, and the verifier walks each turn of a
/// loop: two short loops cost it a twentieth of a long one (kernel/bpf/verifier.c, `do_check_subprogs`, since 5.6; `bpf_loop`
/// came in 5.17).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exec_stride(slot: u32) -> i64 {
    for _ in 0..STRIDE_STEPS {
        if exec_step(slot) != 0 {
            return 1;
        }
    }
    0
}

/// One variable, or one chunk of a long one. Returns 1 to stop.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn exec_step(slot: u32) -> i64 {
    let Some(slot) = EXEC_SLOTS.get_ptr_mut(slot) else { return 1 };
    let slot: *mut Slot = slot;
    // SAFETY: this program owns the slot.
    let (walk, chunk) = unsafe { (&mut (*slot).walk, (*slot).chunk.as_mut_ptr()) };
    if walk.at >= walk.end {
        return 1;
    }
    // SAFETY: destination and size are the chunk; the helper checks the source.
    let read = unsafe { bpf_probe_read_user_str(chunk.cast(), CHUNK_BYTES as u32, walk.at as *const c_void) };
    if read <= 0 {
        walk.flags |= ExecFlags::UNREADABLE;
        return 1;
    }
    let read = read as u64;
    let continues =
        read == CHUNK_BYTES as u64 && walk.at + read <= walk.end && !ends_here(walk.at + read - 1);
    let first = walk.skipping == 0;
    walk.skipping = u32::from(continues);
    walk.at += if continues { read - 1 } else { read };
    if first { report(walk, slot, read) } else { 0 }
}

/// Whether the byte at `address` is the zero that ends a variable: a string that fills the chunk exactly looks like one
/// that was cut.
#[inline(always)]
fn ends_here(address: u64) -> bool {
    let mut byte = 1_u8;
    // SAFETY: the destination is a local byte; the helper checks the source.
    let result = unsafe { bpf_probe_read_user((&raw mut byte).cast(), 1, address as *const c_void) };
    result == 0 && byte == 0
}

/// Appends the variable in the chunk to the record: with its value only if its name is on the allow-list.
#[inline(always)]
fn report(walk: &mut Walk, slot: *mut Slot, read: u64) -> i64 {
    // SAFETY: this program owns the slot.
    let (chunk, name) = unsafe { (&(*slot).chunk, &mut (*slot).name) };
    let length = read_name(walk, chunk, name);
    // By reference: a copy would be on the stack.
    let name: &VariableName = &name.0;
    // SAFETY: the reference is not kept.
    let allowed = unsafe { IDENTITY_VARIABLES.get(name) }.is_some();
    let mut bytes = if allowed { read } else { length };
    if bytes > CHUNK_BYTES as u64 - 1 {
        bytes = CHUNK_BYTES as u64 - 1;
    }
    let out = walk.out as usize;
    if out > EXEC_DATA_BYTES - CHUNK_BYTES {
        walk.flags |= ExecFlags::ENVIRONMENT_CUT;
        return 1;
    }
    // SAFETY: `out` and `bytes` are bounded above so that source and destination lie within the slot.
    unsafe {
        let destination = (*slot).record.data.as_mut_ptr().add(out);
        if bpf_probe_read_kernel(destination.cast(), bytes as u32, chunk.as_ptr().cast()) != 0 {
            return 1;
        }
        *destination.add(bytes as usize) = 0;
    }
    // An allowed variable was read with its zero; a name was not.
    walk.out += if allowed && bytes == read { bytes as u32 } else { bytes as u32 + 1 };
    0
}

/// Copies the variable's name out of the chunk; returns its length.
#[inline(always)]
fn read_name(walk: &mut Walk, chunk: &[u8; CHUNK_BYTES], name: &mut Name) -> u64 {
    *name = Name([0; VARIABLE_NAME_BYTES]);
    let mut length = 0;
    while length < VARIABLE_NAME_BYTES {
        let byte = chunk[length];
        if byte == b'=' || byte == 0 {
            break;
        }
        name.0[length] = byte;
        length += 1;
    }
    walk.name_length = length as u32;
    // By way of the map, so that the verifier does not follow each possible length on its own.
    // SAFETY: a plain load of a valid reference.
    u64::from(unsafe { core::ptr::read_volatile(&raw const walk.name_length) })
}
