//! Connections and unconnected datagrams, at the cgroup hooks: whatever system call, `io_uring` operation or fast open
//! led there.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use buildtrail_agent_abi::{AddressFamily, ConnectRecord, Hook, Kind};

use crate::{
    emit,
    maps::{BULK, SOCKET_OWNERS, SocketOwner},
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
    let mut owner = SocketOwner {
        start_boot_time_ns: header.start_boot_time_ns,
        tgid: header.tgid,
        uid: header.uid,
        effective_uid: header.effective_uid,
        padding: 0,
    };
    // SAFETY: the context's socket is valid during the hook.
    let stored = unsafe { SOCKET_OWNERS.get_or_insert_ptr_mut(ctx, Some(&mut owner)) };
    if !stored.is_null() {
        // SAFETY: checked above; the latest user of a socket that was passed on is the one to name.
        unsafe { *stored = owner };
    }
    let (address, port, protocol) = destination(ctx, family);
    emit::emit(&BULK, header, hook, |header| ConnectRecord {
        header,
        address,
        family,
        port,
        protocol,
        unconnected: u8::from(matches!(hook, Hook::Send4 | Hook::Send6)),
        padding: 0,
    });
    ALLOW
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
