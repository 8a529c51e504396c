//! Who really sends: on connections that another process opened and left to its child or passed on, and on sockets that
//! were connected or opened in a way that those hooks do not see.
//!
//! Every send of the host comes here, and nearly all end at one look into the socket's storage.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_sk_storage_get},
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use buildtrail_agent_abi::{Hook, Kind};

use crate::{
    emit,
    hooks::{connect, socket, unix},
    kread::Object,
    maps::{BULK, SENDERS, Socket, SocketFlags, socket_of},
};

/// `security_socket_sendmsg(socket, message, size)`
#[fentry(function = "security_socket_sendmsg")]
pub fn socket_send(ctx: FEntryContext) -> i32 {
    // SAFETY: an argument of this program.
    if let Some(socket) = unsafe { Object::at(ctx.arg(0)).load_pointer(|o| &o.socket_sock) } {
        on_send(socket);
    }
    0
}

/// `sock_send_length(socket, result, flags)`, include/trace/events/sock.h, since Linux 6.3.
#[btf_tracepoint(function = "sock_send_length")]
pub fn socket_sent(ctx: BtfTracePointContext) -> i32 {
    on_send(Object::at(ctx.arg(0)));
    0
}

#[inline(always)]
fn on_send(socket: Object) {
    // SAFETY: `socket` is an argument of the program or was loaded from one.
    let Some(family) = (unsafe { socket.load::<u16>(|o| &o.sock_family) }) else { return };
    if family == unix::AF_UNIX || socket::is_other(family) {
        on_local_or_other(socket, family);
        return;
    }
    // SAFETY: as above.
    let known = unsafe { socket_of(socket.address() as *mut c_void) };
    if !known.is_null() {
        // SAFETY: checked above.
        on_known(unsafe { &mut *known });
    }
}

/// The latest user of a connection is the one to name. Of two that take turns each is reported once.
#[inline(always)]
fn on_known(socket: &mut Socket) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if socket.user.tgid == tgid || tgid == 0 {
        return;
    }
    let new = socket.former_tgid != tgid;
    socket.former_tgid = socket.user.tgid;
    socket.user = emit::user();
    if new && socket.flags & SocketFlags::OPEN != 0 {
        let header = emit::header(Kind::Connect, Hook::SocketSend);
        emit::emit(&BULK, header, Hook::SocketSend, |header| {
            let mut record = connect::record(socket, header);
            record.taken_over = 1;
            record
        });
    }
}

/// The first send of a process on such a socket.
#[inline(always)]
fn on_local_or_other(socket: Object, family: u16) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(sender) = sender_of(socket)
        && *sender != tgid
    {
        *sender = tgid;
        if family == unix::AF_UNIX {
            unix::report(socket, Hook::SocketSend);
        } else {
            socket::on_send(socket, family);
        }
    }
}

/// The process that is known to send on a socket; 0 for none.
#[inline(always)]
pub fn sender_of(socket: Object) -> Option<&'static mut u32> {
    let mut nobody = 0_u32;
    let map = (&raw const SENDERS).cast_mut().cast();
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: `socket` is an argument of the program or was loaded from one; what is kept of it outlives the program.
    unsafe {
        let sender: *mut u32 =
            bpf_sk_storage_get(map, socket.address() as *mut c_void, (&raw mut nobody).cast(), flags).cast();
        sender.as_mut()
    }
}
