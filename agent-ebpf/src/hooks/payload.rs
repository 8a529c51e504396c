//! How connections introduce themselves: the TLS `ClientHello`, and the request line of HTTP's CONNECT, from the first
//! payload that a connection sends. Nothing else of what connections say leaves the kernel.

use core::hint::black_box;

use aya_ebpf::programs::SkBuffContext;
use buildtrail_agent_abi::{Hook, Kind, PAYLOAD_BYTES, Payload, PayloadKind, PayloadRecord};

use super::packets::{Packet, load_payload};
use crate::{
    emit::{self, Outcome},
    maps::{BULK, Socket, SocketFlags},
};

/// A TLS record's header, and the type of the handshake message in it.
const TLS_START_BYTES: u32 = 6;
const TLS_RECORD_HEADER_BYTES: u32 = 5;
const TLS_HANDSHAKE: u8 = 22;
const TLS_MAJOR_VERSION: u8 = 3;
const TLS_CLIENT_HELLO: u8 = 1;
/// Most of a hello that is followed over several packets.
const MOST_OF_A_HELLO: u32 = 16384;
/// Most of a request line: a name of 255 bytes, a port, the words around it.
const REQUEST_BYTES: u32 = 320;

#[inline(always)]
pub fn on_payload(ctx: &SkBuffContext, hook: Hook, socket: &mut Socket, packet: &Packet, sequence: u32) {
    if socket.flags & SocketFlags::SPOKEN != 0 {
        if socket.hello_next == sequence {
            let left = socket.hello_left;
            report(ctx, hook, socket, packet, (PayloadKind::HELLO_MORE, left, sequence));
        }
        return;
    }
    socket.flags |= SocketFlags::SPOKEN;
    let Ok(start) = ctx.load::<[u8; 8]>(packet.payload as usize) else { return };
    if start[0] == TLS_HANDSHAKE
        && start[1] == TLS_MAJOR_VERSION
        && start[5] == TLS_CLIENT_HELLO
        && packet.length >= TLS_START_BYTES
    {
        let record = u32::from(start[3]) << 8 | u32::from(start[4]);
        let record = record + TLS_RECORD_HEADER_BYTES;
        if record <= MOST_OF_A_HELLO {
            report(ctx, hook, socket, packet, (PayloadKind::HELLO, record, sequence));
        }
    } else if start == *b"CONNECT " {
        report(ctx, hook, socket, packet, (PayloadKind::PROXY, REQUEST_BYTES, sequence));
    }
}

/// Copies at most as many bytes as are wanted.
#[inline(always)]
fn report(
    ctx: &SkBuffContext,
    hook: Hook,
    socket: &mut Socket,
    packet: &Packet,
    (kind, wanted, sequence): (u16, u32, u32),
) {
    let header = emit::user_header(&socket.user, Kind::Payload, hook);
    let Some(mut entry) = BULK.reserve_untyped::<PayloadRecord>(0) else {
        emit::count(hook, Outcome::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    let bytes = if wanted < packet.length { wanted } else { packet.length };
    // SAFETY: `record` is the reserved room; the payload is written by the helper below, within its bounds.
    let loaded = unsafe {
        (*record).header = header;
        (*record).cookie = socket.cookie;
        (*record).kind = kind;
        (*record).padding = 0;
        let payload = (&raw mut (*record).payload).cast();
        let loaded = load_payload(ctx, packet.payload, bytes, payload, PAYLOAD_BYTES as u32);
        (*record).length = loaded.unwrap_or(0) as u16;
        loaded
    };
    if loaded.is_some() {
        if kind == PayloadKind::PROXY {
            // SAFETY: the record was filled.
            unsafe { keep_first_line(record) };
        } else {
            follow(socket, bytes, wanted, sequence);
        }
        entry.submit(emit::waking(&BULK, 0, size_of::<PayloadRecord>() as u64));
        emit::count(hook, Outcome::Emitted);
    } else {
        entry.discard(0);
        emit::count(hook, Outcome::Unreadable);
    }
}

/// What is missing of a hello comes in the next packet.
#[inline(always)]
fn follow(socket: &mut Socket, bytes: u32, wanted: u32, sequence: u32) {
    let whole = bytes <= PAYLOAD_BYTES as u32;
    socket.hello_left = if whole { wanted - bytes } else { 0 };
    socket.hello_next = sequence.wrapping_add(bytes);
}

/// Clears everything from the first control character on, which ends the line: the lines that follow carry credentials.
///
/// Eight bytes at a time and without branches, so that the verifier follows little.
///
/// # Safety
///
/// `record` must be filled.
#[inline(always)]
unsafe fn keep_first_line(record: *mut PayloadRecord) {
    let mut keep = u64::MAX;
    let mut at = 0;
    while at < REQUEST_BYTES as usize / 8 {
        // SAFETY: by contract; the index is below the payload's length, and the type is aligned.
        unsafe {
            let payload: *mut Payload = &raw mut (*record).payload;
            let word = payload.cast::<u64>().add(at);
            let ends = control_characters(*word);
            let before_first = ((ends & ends.wrapping_neg()) >> 7).wrapping_sub(1);
            *word &= keep & before_first;
            let ended = black_box((ends | ends.wrapping_neg()) >> 63);
            keep &= ended.wrapping_sub(1);
        }
        at += 1;
    }
}

/// The highest bit of each byte below a space, up to the first such byte; behind it bits can be set that mean nothing.
#[inline(always)]
const fn control_characters(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    word.wrapping_sub(EACH * b' ' as u64) & !word & (EACH * 0x80)
}
