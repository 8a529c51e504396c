//! Connections and unconnected datagrams, at the cgroup hooks: whatever system call, `io_uring` operation or fast open
//! led there.

use aya_ebpf::{
    helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use buildtrail_agent_abi::{AddressFamily, ConnectRecord, Header, Hook, Kind};

use crate::{
    emit,
    hooks::closed,
    maps::{BULK, Socket, SocketFlags, socket_of, socket_or},
};

/// Observing only: the operation goes on.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    on_destination(&ctx, Hook::Connect4, AddressFamily::V4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    on_destination(&ctx, Hook::Connect6, AddressFamily::V6)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    on_destination(&ctx, Hook::Send4, AddressFamily::V4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    on_destination(&ctx, Hook::Send6, AddressFamily::V6)
}

#[inline(always)]
fn on_destination(ctx: &SockAddrContext, hook: Hook, family: u16) -> i32 {
    let header = emit::header(Kind::Connect, hook);
    // SAFETY: a helper on the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    let mut socket = Socket::of(emit::user_of(&header), cookie);
    socket.flags = SocketFlags::OPEN;
    socket.opened_boot_time_ns = header.boot_time_ns;
    (socket.address, socket.port, socket.protocol) = destination(ctx, family);
    socket.family = family;
    socket.unconnected = u8::from(matches!(hook, Hook::Send4 | Hook::Send6));
    keep(ctx, &mut socket, hook);
    emit::emit(&BULK, header, hook, |header| record(&socket, header));
    ALLOW
}

/// Keeps what the socket reaches now. Another connection that it had before ends with this one; datagrams to several places
/// are counted together.
#[inline(always)]
fn keep(ctx: &SockAddrContext, socket: &mut Socket, hook: Hook) {
    // SAFETY: the context's socket is valid during the hook; so is what is kept of it.
    unsafe {
        let kernel_socket = (*ctx.sock_addr).__bindgen_anon_1.sk.cast();
        let known = socket_of(kernel_socket);
        if known.is_null() {
            socket_or(kernel_socket, socket);
            return;
        }
        let open = (*known).flags & SocketFlags::OPEN != 0;
        if open && socket.unconnected == 0 {
            closed::report(&*known, hook, closed::End::of_datagrams(&*known));
        } else if open {
            socket.opened_boot_time_ns = (*known).opened_boot_time_ns;
            socket.bytes_out = (*known).bytes_out;
            socket.bytes_in = (*known).bytes_in;
            socket.unconnected = (*known).unconnected;
        }
        *known = *socket;
    }
}

/// What a socket reaches, as a record.
#[inline(always)]
pub fn record(socket: &Socket, header: Header) -> ConnectRecord {
    ConnectRecord {
        header,
        address: socket.address,
        family: socket.family,
        port: socket.port,
        protocol: socket.protocol,
        unconnected: socket.unconnected,
        taken_over: 0,
        padding: 0,
        cookie: socket.cookie,
    }
}

#[inline(always)]
fn destination(ctx: &SockAddrContext, family: u16) -> ([u8; 16], u16, u8) {
    // SAFETY: the hook's context; the verifier allows these members.
    let (words, port, protocol) = unsafe {
        let context = ctx.sock_addr;
        let words = if family == AddressFamily::V4 {
            [(*context).user_ip4, 0, 0, 0]
        } else {
            let ip = &raw const (*context).user_ip6;
            [(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]]
        };
        (words, (*context).user_port, (*context).protocol)
    };
    let mut address = [0; 16];
    let mut at = 0;
    while at < 4 {
        // Network order in memory: the words' own bytes.
        let bytes = words[at].to_ne_bytes();
        address[at * 4] = bytes[0];
        address[at * 4 + 1] = bytes[1];
        address[at * 4 + 2] = bytes[2];
        address[at * 4 + 3] = bytes[3];
        at += 1;
    }
    (address, u16::from_be(port as u16), protocol as u8)
}
