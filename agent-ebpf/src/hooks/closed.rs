//! How connections end: refused, timed out, reset, or in order after so many bytes.
//!
//! TCP by its own states, in whatever way they are reached (`inet_sock_set_state`, include/trace/events/sock.h), datagram
//! sockets and connections that never left the host when the socket is given up.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_skc_to_tcp_sock,
    macros::{btf_tracepoint, cgroup_sock},
    programs::{BtfTracePointContext, SockContext},
};
use buildtrail_agent_abi::{AddressFamily, ClosedRecord, Hook, Kind, Progress};

use crate::{
    emit,
    kread::Object,
    maps::{BULK, Socket, SocketFlags, socket_of},
};

/// Observing only.
const ALLOW: i32 = 1;
const TCP: u8 = 6;
/// States of TCP (`include/net/tcp_states.h`).
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const CLOSE: u32 = 7;
/// `SOCK_DONE` (include/net/sock.h): the other end has finished.
const DONE: u64 = 1 << 1;

/// `inet_sock_set_state(socket, old_state, new_state)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(ctx: BtfTracePointContext) -> i32 {
    let state: u64 = ctx.arg(2);
    let state = state as u32;
    if state == ESTABLISHED || state == SYN_SENT || state == CLOSE {
        let kernel_socket: *mut c_void = ctx.arg(0);
        // SAFETY: an argument of the program, and not null.
        let socket = unsafe { socket_of(kernel_socket) };
        if !socket.is_null() {
            // SAFETY: checked above.
            on_state(unsafe { &mut *socket }, Object::at(kernel_socket as u64), state);
        }
    }
    0
}

#[inline(always)]
fn on_state(socket: &mut Socket, tcp: Object, state: u32) {
    match state {
        SYN_SENT => socket.flags |= SocketFlags::STARTED,
        ESTABLISHED => {
            socket.flags |= SocketFlags::ESTABLISHED;
            remember_own_end(socket, tcp);
        }
        _ if socket.flags & SocketFlags::OPEN != 0 => {
            report(socket, Hook::TcpState, End::of_stream(tcp));
            // The process can connect the same socket once more.
            socket.flags &= SocketFlags::BY_PACKET;
        }
        _ => {}
    }
}

/// When the state is CLOSE, the port is given back already.
#[inline(always)]
fn remember_own_end(socket: &mut Socket, tcp: Object) {
    // SAFETY: an argument of the program.
    let (port, address) =
        unsafe { (tcp.load(|o| &o.sock_local_port), tcp.load::<u32>(|o| &o.sock_local_v4)) };
    socket.local_port = port.unwrap_or(0);
    if socket.family == AddressFamily::V4 {
        let address = address.unwrap_or(0).to_ne_bytes();
        socket.local_address[0] = address[0];
        socket.local_address[1] = address[1];
        socket.local_address[2] = address[2];
        socket.local_address[3] = address[3];
    } else {
        socket.local_address = tcp.read(|o| &o.sock_local_v6).unwrap_or([0; 16]);
    }
}

#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    // SAFETY: this program type takes its context as the socket.
    let socket = unsafe { socket_of(ctx.sock.cast()) };
    if !socket.is_null() {
        // SAFETY: checked above.
        let socket = unsafe { &mut *socket };
        // Before 5.12 `tcp_state` has no socket storage, so nobody knows how far a connection came: its end is not told.
        let ends_later = socket.protocol == TCP
            && (cfg!(feature = "before-5-12") || socket.flags & SocketFlags::STARTED != 0);
        if socket.flags & SocketFlags::OPEN != 0 && !ends_later {
            report(socket, Hook::SocketRelease, End::of_datagrams(socket));
            socket.flags &= SocketFlags::BY_PACKET;
        }
    }
    ALLOW
}

/// What is known in the end.
#[derive(Clone, Copy)]
pub struct End {
    bytes_out: u64,
    bytes_in: u64,
    error: u32,
}

impl End {
    #[inline(always)]
    pub fn of_datagrams(socket: &Socket) -> Self {
        Self { bytes_out: socket.bytes_out, bytes_in: socket.bytes_in, error: 0 }
    }

    #[inline(always)]
    fn of_stream(kernel_socket: Object) -> Self {
        // SAFETY: an argument of the program, and what the helper makes of it, whose type the verifier knows.
        unsafe {
            let flags: u64 = kernel_socket.load(|o| &o.sock_flags).unwrap_or(0);
            let error = kernel_socket.load(|o| &o.sock_error).unwrap_or(0);
            let tcp = bpf_skc_to_tcp_sock(kernel_socket.address() as *mut c_void);
            if tcp.is_null() {
                return Self { bytes_out: 0, bytes_in: 0, error };
            }
            let tcp = Object::at(tcp as u64);
            let sent: u64 = tcp.load(|o| &o.tcp_bytes_sent).unwrap_or(0);
            let repeated = tcp.load(|o| &o.tcp_bytes_repeated).unwrap_or(0);
            let received: u64 = tcp.load(|o| &o.tcp_bytes_received).unwrap_or(0);
            // The end has a sequence number of its own (net/ipv4/tcp_input.c, `tcp_rcv_nxt_update`).
            let end = u64::from(flags & DONE != 0 && received > 0);
            Self { bytes_out: sent.wrapping_sub(repeated), bytes_in: received - end, error }
        }
    }
}

#[inline(always)]
pub fn report(socket: &Socket, hook: Hook, end: End) {
    let header = emit::user_header(&socket.user, Kind::Closed, hook);
    let progress = if socket.flags & SocketFlags::ESTABLISHED != 0 {
        Progress::ESTABLISHED
    } else if socket.flags & SocketFlags::STARTED != 0 {
        Progress::STARTED
    } else {
        Progress::NONE
    };
    emit::emit(&BULK, header, hook, |header| ClosedRecord {
        header,
        cookie: socket.cookie,
        opened_boot_time_ns: socket.opened_boot_time_ns,
        bytes_out: end.bytes_out,
        bytes_in: end.bytes_in,
        address: socket.address,
        local_address: socket.local_address,
        family: socket.family,
        port: socket.port,
        local_port: socket.local_port,
        protocol: socket.protocol,
        unconnected: socket.unconnected,
        error: end.error,
        progress,
        padding: [0; 3],
    });
}
