//! Secret files: opened, received from another process, mapped, changed, linked, renamed, removed.
//!
//! At `security_*` functions (security/security.c), which every way to a file leads through: each system call, `io_uring`,
//! handles, descriptors passed on, layers of an overlay. fentry rather than LSM: it costs less, and sees what another
//! security module refuses. Nearly all files are told away by a bit in a table, before anything is built.

use aya_ebpf::{
    cty::c_char,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_d_path, bpf_probe_read_kernel_str},
    },
    macros::fentry,
    programs::FEntryContext,
};
use buildtrail_agent_abi::{
    FILE_PATH_BYTES, FILTER_WORDS, FileAction, FileKey, FileMatch, FileRecord, Hook, Kind, NameKey,
    filter_bit,
};

use crate::{
    emit::{self, Outcome, Urgency},
    hooks::registers,
    kread::Object,
    maps::{
        AGENT, CRITICAL, FILE_SLOTS, FILE_SLOTS_LENGTH, FileSlot, WATCH_FILTER, WATCHED_FILES, WATCHED_NAMES,
    },
    slots,
};

/// Longest name that a directory entry holds itself on every kernel (`DNAME_INLINE_LEN`, include/linux/dcache.h).
const SHORT_NAME_BYTES: u32 = 32;
/// Longest name of a file, with its zero.
const NAME_BYTES: u32 = 256;
/// The record without its path.
const FIXED_BYTES: usize = size_of::<FileRecord>() - FILE_PATH_BYTES;

/// What happened to a file.
#[derive(Clone, Copy)]
struct Event {
    hook: Hook,
    action: FileAction,
    flags: u32,
}

/// `security_file_open(file)`
#[fentry(function = "security_file_open")]
pub fn file_open(ctx: FEntryContext) -> i32 {
    let file = Object::at(ctx.arg(0));
    // SAFETY: an argument of this program.
    let flags = unsafe { file.load(|o| &o.file_flags) }.unwrap_or(0);
    let event = Event { hook: Hook::FileOpen, action: FileAction::Open, flags };
    // SAFETY: as above.
    unsafe {
        if let (Some(entry), Some(inode)) =
            (file.load_pointer(|o| &o.file_dentry), file.load_pointer(|o| &o.file_inode))
            && may_be_secret(entry, inode)
        {
            report(entry, inode, Some(file), event);
        }
    }
    0
}

/// `security_file_receive(file)`: `SCM_RIGHTS`, `pidfd_getfd` (`fs/file.c`, `receive_fd`).
#[fentry(function = "security_file_receive")]
pub fn file_receive(ctx: FEntryContext) -> i32 {
    let file = Object::at(ctx.arg(0));
    on_named_file(file, Event { hook: Hook::FileReceive, action: FileAction::Receive, flags: 0 });
    0
}

/// `security_mmap_file(file, protection, flags)`; no file for anonymous memory.
#[fentry(function = "security_mmap_file")]
pub fn file_map(ctx: FEntryContext) -> i32 {
    let file: u64 = ctx.arg(0);
    if file != 0 {
        let protection: u64 = ctx.arg(1);
        let event = Event { hook: Hook::FileMap, action: FileAction::Map, flags: protection as u32 };
        on_named_file(Object::at(file), event);
    }
    0
}

/// `security_path_truncate(path)` and its neighbours take a path, `security_inode_setattr` an entry; its place among the
/// arguments changed with Linux 5.12. So the path functions.
#[fentry(function = "security_path_chmod")]
pub fn file_mode(ctx: FEntryContext) -> i32 {
    on_path(Object::at(ctx.arg(0)), Hook::FileMode)
}

/// `security_path_chown(path, uid, gid)`
#[fentry(function = "security_path_chown")]
pub fn file_owner(ctx: FEntryContext) -> i32 {
    on_path(Object::at(ctx.arg(0)), Hook::FileOwner)
}

/// `security_path_truncate(path)`
#[fentry(function = "security_path_truncate")]
pub fn file_truncate(ctx: FEntryContext) -> i32 {
    on_path(Object::at(ctx.arg(0)), Hook::FileTruncate)
}

/// `security_inode_link(old_entry, directory, new_entry)`
#[fentry(function = "security_inode_link")]
pub fn file_link(ctx: FEntryContext) -> i32 {
    on_entry(Object::at(ctx.arg(0)), Event { hook: Hook::FileLink, action: FileAction::Link, flags: 0 });
    0
}

/// `security_inode_unlink(directory, entry)`
#[fentry(function = "security_inode_unlink")]
pub fn file_unlink(ctx: FEntryContext) -> i32 {
    on_entry(Object::at(ctx.arg(1)), Event { hook: Hook::FileUnlink, action: FileAction::Unlink, flags: 0 });
    0
}

/// `security_inode_rename(old_directory, old_entry, new_directory, new_entry, flags)`
#[fentry(function = "security_inode_rename")]
pub fn file_rename(ctx: FEntryContext) -> i32 {
    let event = |action| Event { hook: Hook::FileRename, action, flags: 0 };
    on_entry(Object::at(ctx.arg(1)), event(FileAction::Rename));
    on_entry(Object::at(ctx.arg(3)), event(FileAction::Replace));
    0
}

#[inline(always)]
fn on_path(path: Object, hook: Hook) -> i32 {
    // SAFETY: an argument of the program.
    if let Some(entry) = unsafe { path.load_pointer(|o| &o.path_dentry) } {
        let event = Event { hook, action: FileAction::Attributes, flags: 0 };
        on_entry(entry, event);
    }
    0
}

/// Where the kernel does not let a program ask for the path (`kernel/trace/bpf_trace.c`, `btf_allowlist_d_path`).
#[inline(always)]
fn on_named_file(file: Object, event: Event) {
    // SAFETY: `file` is an argument of the program.
    unsafe {
        if let (Some(entry), Some(inode)) =
            (file.load_pointer(|o| &o.file_dentry), file.load_pointer(|o| &o.file_inode))
            && may_be_secret(entry, inode)
        {
            report(entry, inode, None, event);
        }
    }
}

#[inline(always)]
fn on_entry(entry: Object, event: Event) {
    // SAFETY: `entry` is an argument of the program or was loaded from one.
    let Some(inode) = (unsafe { entry.load_pointer(|o| &o.dentry_inode) }) else { return };
    if may_be_secret(entry, inode) {
        report(entry, inode, None, event);
    }
}

/// Looks at the table only: a bit of the file, of its directory or of its name.
#[inline(always)]
fn may_be_secret(entry: Object, inode: Object) -> bool {
    let Some(filter) = WATCH_FILTER.get(0) else { return false };
    // SAFETY: entries and inodes come from an argument of the program.
    unsafe {
        let Some(number) = inode.load::<u64>(|o| &o.inode_number) else { return false };
        if has_bit(filter, number) {
            return true;
        }
        if let Some(number) = directory_of(entry)
            && has_bit(filter, number)
        {
            return true;
        }
        name_of(entry).is_some_and(|name| has_bit(filter, name.seed()))
    }
}

#[inline(always)]
fn has_bit(filter: &[u64; FILTER_WORDS], seed: u64) -> bool {
    let (word, bit) = filter_bit(seed);
    filter[word] & bit != 0
}

/// # Safety
///
/// `entry` must come from an argument of the program.
#[inline(always)]
unsafe fn directory_of(entry: Object) -> Option<u64> {
    // SAFETY: by contract.
    unsafe {
        let parent = entry.load_pointer(|o| &o.dentry_parent)?;
        parent.load_pointer(|o| &o.dentry_inode)?.load(|o| &o.inode_number)
    }
}

/// Of names that the entry holds itself.
///
/// # Safety
///
/// `entry` must come from an argument of the program.
#[inline(always)]
unsafe fn name_of(entry: Object) -> Option<NameKey> {
    // SAFETY: by contract.
    let (length, start) = unsafe {
        let length: u32 = entry.load(|o| &o.dentry_name_length)?;
        (length, entry.load::<u64>(|o| &o.dentry_short_name)?)
    };
    if length == 0 || length >= SHORT_NAME_BYTES {
        return None;
    }
    // Bytes behind the name are those of an earlier one.
    let start = if length < 8 { start & ((1 << (length * 8)) - 1) } else { start };
    Some(NameKey { start, length: u64::from(length) })
}

/// Which of the watched things this is: a [`FileMatch`], 0 for none.
#[inline(always)]
fn matches(entry: Object, inode: Object, device: u32, directory: u64) -> u16 {
    let mut matched = 0;
    let number = inode.read::<u64>(|o| &o.inode_number).unwrap_or(0);
    // SAFETY: the references are not kept.
    unsafe {
        if WATCHED_FILES.get(FileKey::new(device, number)).is_some_and(|kind| *kind == FileMatch::FILE) {
            matched |= FileMatch::FILE;
        }
        if WATCHED_FILES
            .get(FileKey::new(device, directory))
            .is_some_and(|kind| *kind == FileMatch::DIRECTORY)
        {
            matched |= FileMatch::DIRECTORY;
        }
        if let Some(name) = name_of(entry)
            && WATCHED_NAMES.get(name).is_some()
        {
            matched |= FileMatch::NAME;
        }
    }
    matched
}

#[inline(always)]
fn report(entry: Object, inode: Object, file: Option<Object>, event: Event) {
    let device = inode
        .follow(|o| &o.inode_super_block)
        .and_then(|super_block| super_block.read(|o| &o.super_block_device))
        .unwrap_or(0);
    // SAFETY: `entry` comes from an argument of the program.
    let directory = unsafe { directory_of(entry) }.unwrap_or(0);
    let matched = matches(entry, inode, device, directory);
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    if matched == 0 || AGENT.get(0) == Some(&process) {
        return;
    }
    let header = emit::header(Kind::File, event.hook);
    let Some((_, slot)) = slots::claim(&FILE_SLOTS, FILE_SLOTS_LENGTH as u32) else {
        emit::count(event.hook, Outcome::NoSlot);
        return;
    };
    // SAFETY: this program owns the slot.
    let record = unsafe { &mut (*slot).record };
    record.header = header;
    record.inode = inode.read(|o| &o.inode_number).unwrap_or(0);
    record.directory = directory;
    record.device = device;
    record.generation = inode.read(|o| &o.inode_generation).unwrap_or(0);
    record.action = event.action as u16;
    record.matched = matched;
    record.flags = event.flags;
    record.call = registers::call().unwrap_or(0) as u32;
    // SAFETY: the verifier knows the running task.
    record.task_flags = unsafe { emit::current().load(|o| &o.task_flags) }.unwrap_or(0);
    let length = match file {
        Some(file) => read_path(record, file),
        None => read_name(record, entry),
    };
    record.name_only = u32::from(file.is_none());
    record.path_length = length as u32;
    send(slot, length, event.hook);
}

#[inline(always)]
fn send(slot: *mut FileSlot, length: usize, hook: Hook) {
    // SAFETY: this program owns the slot; the size is bounded by the record.
    let outcome = unsafe {
        let record = (&raw mut (*slot).record).cast();
        emit::copy(&CRITICAL, record, (FIXED_BYTES + length) as u64, Urgency::Soon)
    };
    // SAFETY: as above.
    unsafe { slots::release(slot) };
    emit::count(hook, outcome);
}

/// The path as the process sees it.
#[inline(always)]
fn read_path(record: &mut FileRecord, file: Object) -> usize {
    let Some(path) = file.address_of(|o| &o.file_path) else { return 0 };
    // SAFETY: `path` is a member of an argument of the program, which the helper wants; destination and size are the
    // record's.
    let length = unsafe {
        bpf_d_path(path as *mut _, record.path.as_mut_ptr().cast::<c_char>(), FILE_PATH_BYTES as u32)
    };
    if length <= 0 || length > FILE_PATH_BYTES as i64 { 0 } else { length as usize }
}

/// The last component.
#[inline(always)]
fn read_name(record: &mut FileRecord, entry: Object) -> usize {
    let Some(name) = entry.read::<u64>(|o| &o.dentry_name) else { return 0 };
    // SAFETY: destination and size lie within the record; the helper checks the source.
    let length =
        unsafe { bpf_probe_read_kernel_str(record.path.as_mut_ptr().cast(), NAME_BYTES, name as *const _) };
    if length <= 0 || length > i64::from(NAME_BYTES) { 0 } else { length as usize }
}
