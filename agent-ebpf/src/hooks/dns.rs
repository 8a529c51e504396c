//! DNS over UDP, from the packets themselves: port 53 in either direction.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_sk_storage_get, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use buildtrail_agent_abi::{AddressFamily, DNS_PAYLOAD_BYTES, DnsRecord, Header, Hook, Kind, Truncation};

use crate::{
    emit::{self, Outcome},
    maps::{BULK, SOCKET_OWNERS, SocketOwner},
};

/// Observing only: the packet goes on.
const PASS: i32 = 1;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;
const UDP_HEADER_BYTES: u32 = 8;
const IPV6_HEADER_BYTES: u32 = 40;
/// A DNS header.
const SHORTEST_MESSAGE: u32 = 12;

#[cgroup_skb(egress)]
pub fn dns_out(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Hook::DnsOut);
    PASS
}

#[cgroup_skb(ingress)]
pub fn dns_in(ctx: SkBuffContext) -> i32 {
    on_packet(&ctx, Hook::DnsIn);
    PASS
}

#[inline(always)]
fn on_packet(ctx: &SkBuffContext, hook: Hook) {
    let Some(packet) = locate(ctx, hook) else { return };
    let length = ctx.skb.len().wrapping_sub(packet.payload);
    if length < SHORTEST_MESSAGE || length > u32::from(u16::MAX) {
        return;
    }
    let header = header(ctx, hook);
    let Some(mut entry) = BULK.reserve_untyped::<DnsRecord>(0) else {
        emit::count(hook, Outcome::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is the reserved room; the payload is written by the helper below, within its bounds.
    let loaded = unsafe {
        (*record).header = header;
        (*record).resolver = packet.resolver;
        (*record).family = packet.family;
        (*record).incoming = u8::from(matches!(hook, Hook::DnsIn));
        (*record).padding = 0;
        load_payload(ctx, record, packet.payload, length)
    };
    if loaded {
        entry.submit(0);
        emit::count(hook, Outcome::Emitted);
    } else {
        entry.discard(0);
        emit::count(hook, Outcome::Unreadable);
    }
}

/// Copies the message, or its first bytes.
///
/// # Safety
///
/// `record` must be valid for writes.
#[inline(always)]
unsafe fn load_payload(ctx: &SkBuffContext, record: *mut DnsRecord, from: u32, length: u32) -> bool {
    let cut = length > DNS_PAYLOAD_BYTES as u32;
    let mut bytes = if cut { DNS_PAYLOAD_BYTES as u32 } else { length };
    // The verifier wants the lower bound beside the call.
    if bytes == 0 || bytes > DNS_PAYLOAD_BYTES as u32 {
        return false;
    }
    bytes &= 0xfff;
    // SAFETY: by contract, and the size was bounded above.
    unsafe {
        (*record).length = bytes as u16;
        (*record).truncation = if cut { Truncation::DNS } else { 0 };
        bpf_skb_load_bytes(ctx.skb.skb as *const c_void, from, (&raw mut (*record).payload).cast(), bytes)
            == 0
    }
}

struct Packet {
    payload: u32,
    resolver: [u8; 16],
    family: u16,
}

/// Finds the DNS message in a packet, which begins with its IP header.
#[inline(always)]
fn locate(ctx: &SkBuffContext, hook: Hook) -> Option<Packet> {
    let outgoing = matches!(hook, Hook::DnsOut);
    let version = ctx.load::<u8>(0).ok()? >> 4;
    let mut resolver = [0; 16];
    let (udp, family) = if version == 4 {
        if ctx.load::<u8>(9).ok()? != UDP {
            return None;
        }
        let address: [u8; 4] = ctx.load(if outgoing { 16 } else { 12 }).ok()?;
        resolver[..4].copy_from_slice(&address);
        (u32::from(ctx.load::<u8>(0).ok()? & 0xf) * 4, AddressFamily::V4)
    } else {
        if ctx.load::<u8>(6).ok()? != UDP {
            return None;
        }
        resolver = ctx.load(if outgoing { 24 } else { 8 }).ok()?;
        (IPV6_HEADER_BYTES, AddressFamily::V6)
    };
    let port = ctx.load::<u16>(udp as usize + if outgoing { 2 } else { 0 }).ok()?;
    (u16::from_be(port) == DNS_PORT).then_some(Packet { payload: udp + UDP_HEADER_BYTES, resolver, family })
}

/// A header about the socket's owner: packets are not always seen in the process that sends them.
#[inline(always)]
fn header(ctx: &SkBuffContext, hook: Hook) -> Header {
    let mut header = emit::anonymous_header(Kind::Dns, hook);
    // SAFETY: the context's socket pointer is checked before use, as the verifier wants.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return header;
        }
        let map = (&raw const SOCKET_OWNERS).cast_mut().cast();
        let owner: *mut SocketOwner = bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0).cast();
        if !owner.is_null() {
            header.tgid = (*owner).tgid;
            header.start_boot_time_ns = (*owner).start_boot_time_ns;
            header.uid = (*owner).uid;
            header.effective_uid = (*owner).effective_uid;
        }
    }
    header
}
