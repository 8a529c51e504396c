//! Connections to unix sockets, where agents and daemons hand out credentials.
//!
//! Seen where the kernel connects, or else at the end of the system call, and read from the kernel's own socket, so that
//! the job's memory, which it can rewrite meanwhile, decides nothing. The cgroup hooks do not see unix sockets before 6.7.
//! What neither sees is told by the first send (`send.rs`).

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_kernel},
    macros::{fentry, tracepoint},
    programs::{FEntryContext, TracePointContext},
};
use buildtrail_agent_abi::{Hook, Kind, UNIX_PATH_BYTES, UnixConnectRecord};

use crate::{
    emit,
    hooks::{registers, send},
    kread::Object,
    maps::CRITICAL,
};

pub const AF_UNIX: u16 = 1;
/// Where `struct trace_event_raw_sys_exit` has the result (include/trace/events/syscalls.h).
const RESULT_OFFSET: usize = 16;
/// `sun_family` before `sun_path`.
const FAMILY_BYTES: u32 = 2;

/// `security_unix_stream_connect(socket, listener, new_socket)`
#[fentry(function = "security_unix_stream_connect")]
pub fn unix_stream_connect(ctx: FEntryContext) -> i32 {
    let (socket, listener) = (Object::at(ctx.arg(0)), Object::at(ctx.arg(1)));
    if let Some(sender) = send::sender_of(socket) {
        *sender = (bpf_get_current_pid_tgid() >> 32) as u32;
    }
    report_to(listener, listener, Hook::UnixConnect);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn unix_connect(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset lies within the tracepoint's record.
    if unsafe { ctx.read_at::<i64>(RESULT_OFFSET) } == Ok(0) {
        on_connected();
    }
    0
}

#[inline(always)]
fn on_connected() -> Option<()> {
    let socket = connected_socket()?;
    if socket.read::<u16>(|o| &o.sock_family)? == AF_UNIX {
        report(socket, Hook::UnixConnect);
    }
    Some(())
}

/// Reports whom a connected socket reaches, if that has a name.
#[inline(always)]
pub fn report(socket: Object, hook: Hook) -> Option<()> {
    report_to(socket.follow(|o| &o.unix_peer)?, socket, hook)
}

/// `peer` has the name, `holder` the process that listens.
#[inline(always)]
fn report_to(peer: Object, holder: Object, hook: Hook) -> Option<()> {
    let address = peer.follow(|o| &o.unix_address)?;
    let peer_tgid = listener(holder).unwrap_or(0);
    let header = emit::header(Kind::UnixConnect, hook);
    emit::emit(&CRITICAL, header, hook, |header| {
        let by_send = u32::from(matches!(hook, Hook::SocketSend));
        let mut record =
            UnixConnectRecord { header, peer_tgid, path_length: 0, path: [0; UNIX_PATH_BYTES], by_send };
        record.path_length = read_path(address, &mut record.path).unwrap_or(0);
        record
    });
    Some(())
}

/// The socket behind the system call's first argument.
#[inline(always)]
fn connected_socket() -> Option<Object> {
    file_of(registers::first_argument()? as u32)?.follow(|o| &o.file_private_data)?.follow(|o| &o.socket_sock)
}

/// The file behind a descriptor of the current process.
#[inline(always)]
pub fn file_of(descriptor: u32) -> Option<Object> {
    // SAFETY: the verifier knows the running task, and what its members point to.
    let array = unsafe {
        let table = emit::current().load_pointer(|o| &o.task_files)?.load_pointer(|o| &o.files_table)?;
        if descriptor >= table.load::<u32>(|o| &o.fdtable_length)? {
            return None;
        }
        table.load_pointer(|o| &o.fdtable_array)?
    };
    array.element(descriptor)
}

/// The process that listens, as `connect` recorded it (`copy_peercred`, `net/unix/af_unix.c`).
#[inline(always)]
fn listener(socket: Object) -> Option<u32> {
    number_of(socket.follow(|o| &o.sock_peer_pid)?)
}

/// The number that a process has on the host.
#[inline(always)]
pub fn number_of(pid: Object) -> Option<u32> {
    let numbers = pid.address_of(|o| &o.pid_numbers)?;
    Object::at(numbers).read(|o| &o.upid_number)
}

#[inline(always)]
fn read_path(address: Object, path: &mut [u8; UNIX_PATH_BYTES]) -> Option<u32> {
    let length = address.read::<u32>(|o| &o.unix_address_length)?;
    let name = address.address_of(|o| &o.unix_address_name)?;
    // 6.1's verifier forgets that a 32-bit copy of a register is the same number, and refuses the call when the copy is
    // compared and the original is used. So the compiler is to take this for any 64-bit number, which it compares whole.
    let mut bytes = black_box(u64::from(length.wrapping_sub(FAMILY_BYTES)));
    if bytes > UNIX_PATH_BYTES as u64 {
        bytes = UNIX_PATH_BYTES as u64;
    }
    let from = (name + u64::from(FAMILY_BYTES)) as *const c_void;
    // SAFETY: the size is bounded by the destination; the helper checks the source.
    let result = unsafe { bpf_probe_read_kernel(path.as_mut_ptr().cast(), bytes as u32, from) };
    if result == 0 { Some(bytes as u32) } else { None }
}
