//! Packets of sockets whose user is known, as they leave and arrive: DNS messages, what a connection says first, and the
//! destinations of sockets that name them in each packet only. Of all other packets two numbers are looked at.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, macros::cgroup_skb, programs::SkBuffContext};
use buildtrail_agent_abi::{AddressFamily, Hook, Kind};

use crate::{
    atomic, emit,
    hooks::{connect, dns, payload},
    maps::{BULK, Socket, SocketFlags, socket_of},
};

/// Observing only: the packet goes on.
const PASS: i32 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
const UDP_HEADER_BYTES: u32 = 8;
const IPV6_HEADER_BYTES: u32 = 40;
/// Headers with next to no payload: the handshake, acknowledgements, the end. Less than any `ClientHello` or CONNECT.
const TOO_SHORT: u32 = 60;
/// `ETH_P_IP` (`include/uapi/linux/if_ether.h`)
const ETHERTYPE_IPV4: u16 = 0x0800;

#[cgroup_skb(egress)]
pub fn packet_out(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Hook::PacketOut);
    PASS
}

#[cgroup_skb(ingress)]
pub fn packet_in(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Hook::PacketIn);
    PASS
}

/// Where things are in a packet, which begins with its IP header.
pub struct Packet {
    /// The other end.
    pub remote: [u8; 16],
    pub family: u16,
    protocol: u8,
    /// Where the header behind IP's begins.
    pub transport: u32,
    /// Where what the sockets' users say begins.
    pub payload: u32,
    /// How much of it there is.
    pub length: u32,
}

#[inline(always)]
fn on_packet(ctx: &SkBuffContext, hook: Hook) -> Option<()> {
    let outgoing = matches!(hook, Hook::PacketOut);
    // SAFETY: the context's socket pointer is checked before use, as the verifier wants.
    let socket = unsafe {
        let kernel_socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if kernel_socket.is_null() {
            return None;
        }
        let socket = socket_of(kernel_socket.cast());
        if socket.is_null() {
            return None;
        }
        &mut *socket
    };
    if socket.protocol == TCP && socket.flags & SocketFlags::BY_PACKET == 0 {
        let dns = socket.port == dns::PORT;
        let spoken = socket.flags & SocketFlags::SPOKEN != 0;
        let introduces_itself =
            outgoing && if spoken { socket.hello_left != 0 } else { ctx.skb.len() > TOO_SHORT };
        if dns || introduces_itself {
            let mut packet = locate(ctx, outgoing)?;
            let sequence = find_tcp_payload(ctx, &mut packet)?;
            if dns {
                dns::on_stream(ctx, hook, socket, &packet, sequence);
            } else {
                payload::on_payload(ctx, hook, socket, &packet, sequence);
            }
        }
        return None;
    }
    let mut packet = locate(ctx, outgoing)?;
    if socket.protocol == UDP {
        find_payload(ctx, &mut packet, UDP_HEADER_BYTES);
    } else {
        find_payload(ctx, &mut packet, 0);
    }
    // SAFETY: what is kept of the socket is valid during the program; other CPUs count too.
    unsafe {
        let bytes = if outgoing { &raw mut socket.bytes_out } else { &raw mut socket.bytes_in };
        atomic::add(bytes, u64::from(packet.length));
    }
    if socket.flags & SocketFlags::BY_PACKET != 0 {
        if outgoing {
            on_destination(ctx, hook, socket, &packet);
        }
    } else if port(ctx, &packet, outgoing)? == dns::PORT {
        dns::on_datagram(ctx, hook, socket, &packet);
    }
    None
}

#[inline(always)]
fn locate(ctx: &SkBuffContext, outgoing: bool) -> Option<Packet> {
    // SAFETY: a member that the program may read.
    let ethertype = unsafe { (*ctx.skb.skb).protocol } as u16;
    let mut remote = [0; 16];
    if u16::from_be(ethertype) == ETHERTYPE_IPV4 {
        let header: [u8; 20] = ctx.load(0).ok()?;
        let at = if outgoing { 16 } else { 12 };
        remote[0] = header[at];
        remote[1] = header[at + 1];
        remote[2] = header[at + 2];
        remote[3] = header[at + 3];
        let transport = u32::from(header[0] & 0xf) * 4;
        let family = AddressFamily::V4;
        return Some(Packet { remote, family, protocol: header[9], transport, payload: 0, length: 0 });
    }
    remote = ctx.load(if outgoing { 24 } else { 8 }).ok()?;
    let protocol = ctx.load::<u8>(6).ok()?;
    let family = AddressFamily::V6;
    Some(Packet { remote, family, protocol, transport: IPV6_HEADER_BYTES, payload: 0, length: 0 })
}

/// Copies up to `most` bytes; returns how many.
///
/// # Safety
///
/// `to` must have room for `most` bytes.
#[inline(always)]
pub unsafe fn load_payload(
    ctx: &SkBuffContext,
    from: u32,
    length: u32,
    to: *mut u8,
    most: u32,
) -> Option<u32> {
    // One less than the bytes: 6.1's verifier does not learn from a comparison with zero that a number is at least one.
    // As a 64-bit number, see `unix::read_path`.
    let mut before_last = black_box(u64::from(length.wrapping_sub(1)));
    if before_last >= u64::from(most) {
        before_last = u64::from(most) - 1;
    }
    let bytes = before_last as u32 + 1;
    // SAFETY: by contract; the size was bounded above.
    let result = unsafe { bpf_skb_load_bytes(ctx.skb.skb as *const c_void, from, to.cast(), bytes) };
    (result == 0).then_some(bytes)
}

#[inline(always)]
fn find_payload(ctx: &SkBuffContext, packet: &mut Packet, header_bytes: u32) {
    packet.payload = packet.transport + header_bytes;
    let length = ctx.skb.len().wrapping_sub(packet.payload);
    packet.length = if length > u32::from(u16::MAX) * 16 { 0 } else { length };
}

/// Returns the sequence number of the payload's first byte; `None` when there is none.
#[inline(always)]
fn find_tcp_payload(ctx: &SkBuffContext, packet: &mut Packet) -> Option<u32> {
    if packet.protocol != TCP {
        return None;
    }
    let header: [u8; 13] = ctx.load(packet.transport as usize).ok()?;
    find_payload(ctx, packet, u32::from(header[12] >> 4) * 4);
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    (packet.length > 0).then_some(sequence)
}

/// The port of the other end.
#[inline(always)]
fn port(ctx: &SkBuffContext, packet: &Packet, outgoing: bool) -> Option<u16> {
    let at = packet.transport as usize + if outgoing { 2 } else { 0 };
    Some(u16::from_be(ctx.load(at).ok()?))
}

/// A packet of a socket that names its destination in each: reported when it is another one than before.
#[inline(always)]
fn on_destination(ctx: &SkBuffContext, hook: Hook, socket: &mut Socket, packet: &Packet) {
    let has_ports = matches!(packet.protocol, TCP | UDP | SCTP | UDP_LITE);
    let port = if has_ports { port(ctx, packet, true).unwrap_or(0) } else { 0 };
    let same = socket.address == packet.remote && socket.port == port && socket.family == packet.family;
    if same && socket.flags & SocketFlags::OPEN != 0 {
        return;
    }
    let header = emit::user_header(&socket.user, Kind::Connect, hook);
    if socket.flags & SocketFlags::OPEN == 0 {
        socket.opened_boot_time_ns = header.boot_time_ns;
    }
    socket.flags |= SocketFlags::OPEN;
    socket.address = packet.remote;
    socket.port = port;
    socket.family = packet.family;
    socket.protocol = packet.protocol;
    emit::emit(&BULK, header, hook, |header| connect::record(socket, header));
}
