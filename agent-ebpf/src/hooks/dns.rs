//! DNS over UDP and TCP, from the packets themselves: port 53 in either direction.

use aya_ebpf::programs::SkBuffContext;
use buildtrail_agent_abi::{DNS_PAYLOAD_BYTES, DnsRecord, Hook, Kind, Truncation};

use super::packets::{Packet, load_payload};
use crate::{
    emit::{self, Outcome},
    maps::{BULK, Socket},
};

pub const PORT: u16 = 53;
/// A DNS header.
const SHORTEST_MESSAGE: u32 = 12;

#[inline(always)]
pub fn on_datagram(ctx: &SkBuffContext, hook: Hook, socket: &Socket, packet: &Packet) {
    if packet.length >= SHORTEST_MESSAGE {
        report(ctx, hook, socket, packet, None);
    }
}

/// A piece of a stream of messages, each behind its length (RFC 1035, 4.2.2).
#[inline(always)]
pub fn on_stream(ctx: &SkBuffContext, hook: Hook, socket: &Socket, packet: &Packet, sequence: u32) {
    report(ctx, hook, socket, packet, Some(sequence));
}

#[inline(always)]
fn report(ctx: &SkBuffContext, hook: Hook, socket: &Socket, packet: &Packet, sequence: Option<u32>) {
    let header = emit::user_header(&socket.user, Kind::Dns, hook);
    let Some(mut entry) = BULK.reserve_untyped::<DnsRecord>(0) else {
        emit::count(hook, Outcome::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is the reserved room; the payload is written by the helper below, within its bounds.
    let loaded = unsafe {
        (*record).header = header;
        (*record).cookie = socket.cookie;
        (*record).resolver = packet.remote;
        (*record).family = packet.family;
        (*record).incoming = u8::from(matches!(hook, Hook::PacketIn));
        (*record).stream = u8::from(sequence.is_some());
        (*record).sequence = sequence.unwrap_or(0);
        (*record).padding = 0;
        (*record).more_padding = 0;
        let most = DNS_PAYLOAD_BYTES as u32;
        (*record).truncation = if packet.length > most { Truncation::DNS } else { 0 };
        let payload = (&raw mut (*record).payload).cast();
        let loaded = load_payload(ctx, packet.payload, packet.length, payload, most);
        (*record).length = loaded.unwrap_or(0) as u16;
        loaded
    };
    if loaded.is_some() {
        entry.submit(emit::waking(&BULK, 0, size_of::<DnsRecord>() as u64));
        emit::count(hook, Outcome::Emitted);
    } else {
        entry.discard(0);
        emit::count(hook, Outcome::Unreadable);
    }
}
