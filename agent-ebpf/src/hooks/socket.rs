//! Sockets beside TCP, UDP and unix: those that write packets themselves, and families other than IP.

use aya_ebpf::{
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, fentry, tracepoint},
    programs::{FEntryContext, SockContext, TracePointContext},
};
use buildtrail_agent_abi::{Hook, Kind, SocketRecord};

use crate::{
    emit,
    hooks::{registers, unix},
    kread::Object,
    maps::{BULK, Socket, SocketFlags, socket_or},
};

/// Observing only.
const ALLOW: i32 = 1;
const SOCK_RAW: u32 = 3;
/// IP protocols whose destinations other hooks tell.
const TCP: u32 = 6;
const UDP: u32 = 17;
const MPTCP: u32 = 262;
/// Where `struct trace_event_raw_sys_exit` has the result (include/trace/events/syscalls.h).
const RESULT_OFFSET: usize = 16;

/// Runs in `inet_create` and `inet6_create`, which every way to an IP socket leads through.
#[cgroup_sock(sock_create)]
pub fn socket_inet(ctx: SockContext) -> i32 {
    // SAFETY: the hook's context; the verifier allows these members.
    let (family, kind, protocol) = unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    if kind == SOCK_RAW || !matches!(protocol, TCP | UDP | MPTCP) {
        watch_packets(&ctx, family, protocol);
        if kind == SOCK_RAW {
            report(Hook::SocketInet, family, kind, protocol);
        }
    }
    ALLOW
}

/// From now on the socket's packets tell its destinations.
#[inline(always)]
fn watch_packets(ctx: &SockContext, family: u32, protocol: u32) {
    // SAFETY: a helper on the program's own context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    let mut socket = Socket::of(emit::user(), cookie);
    socket.flags = SocketFlags::BY_PACKET;
    socket.family = family as u16;
    socket.protocol = protocol as u8;
    socket.unconnected = 1;
    // SAFETY: this program type takes its context as the socket.
    unsafe { socket_or(ctx.sock.cast(), &mut socket) };
}

/// `security_socket_post_create(socket, family, type, protocol, of_the_kernel)`: the socket is there.
#[fentry(function = "security_socket_post_create")]
pub fn socket_other(ctx: FEntryContext) -> i32 {
    let of_the_kernel: u64 = ctx.arg(4);
    if of_the_kernel as u32 == 0 {
        let (family, kind, protocol): (u64, u64, u64) = (ctx.arg(1), ctx.arg(2), ctx.arg(3));
        on_other(family as u32, kind as u32, protocol as u32);
    }
    0
}

/// The end of socket(2), where security functions cannot be had.
#[tracepoint]
pub fn socket_call(ctx: TracePointContext) -> u32 {
    // SAFETY: the offset lies within the tracepoint's record.
    if let Ok(result) = unsafe { ctx.read_at::<i64>(RESULT_OFFSET) }
        && result >= 0
        // 32-bit system calls, whose arguments are in other registers, have no tracepoints.
        && registers::first_argument().is_none_or(|family| is_other(family as u16))
    {
        on_descriptor(result as u32);
    }
    0
}

/// Asks the socket itself.
#[inline(always)]
fn on_descriptor(descriptor: u32) -> Option<()> {
    let socket = unix::file_of(descriptor)?.follow(|o| &o.file_private_data)?.follow(|o| &o.socket_sock)?;
    let family = socket.read::<u16>(|o| &o.sock_family)?;
    let kind = socket.read::<u16>(|o| &o.sock_type)?;
    let protocol = registers::third_argument()?;
    on_other(u32::from(family), u32::from(kind), protocol as u32);
    Some(())
}

/// Whether no other hook tells of sockets of this family as they are used.
#[inline(always)]
pub fn is_other(family: u16) -> bool {
    !is_seen_elsewhere_or_local(u32::from(family))
}

/// A process sends on a socket of another family.
#[inline(always)]
pub fn on_send(socket: Object, family: u16) {
    let kind = socket.read::<u16>(|o| &o.sock_type).unwrap_or(0);
    report(Hook::SocketSend, u32::from(family), u32::from(kind), 0);
}

#[inline(always)]
fn on_other(family: u32, kind: u32, protocol: u32) {
    if !is_seen_elsewhere_or_local(family) {
        report(Hook::SocketOther, family, kind, protocol);
    }
}

/// unix, IP, netlink, the keys of `IPsec` and the kernel's cryptography (include/linux/socket.h).
#[inline(always)]
fn is_seen_elsewhere_or_local(family: u32) -> bool {
    matches!(family, 0..=2 | 10 | 15 | 16 | 38)
}

#[inline(always)]
fn report(hook: Hook, family: u32, kind: u32, protocol: u32) {
    let header = emit::header(Kind::Socket, hook);
    let by_send = u32::from(matches!(hook, Hook::SocketSend));
    emit::emit(&BULK, header, hook, |header| SocketRecord { header, family, kind, protocol, by_send });
}
