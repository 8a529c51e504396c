//! Records of sockets: how connections end, what is opened beside TCP and UDP, how connections introduce themselves.

use crate::Header;

/// Most bytes of a connection's first payload that one record carries.
pub const PAYLOAD_BYTES: usize = 4096;

/// How far a connection got.
pub struct Progress;

impl Progress {
    /// Nothing left the host.
    pub const NONE: u8 = 0;
    /// The handshake began.
    pub const STARTED: u8 = 1;
    /// It was there.
    pub const ESTABLISHED: u8 = 2;
}

/// A connection ended, or a datagram socket that had a destination. The header's process is the socket's latest user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ClosedRecord {
    /// Who and when.
    pub header: Header,
    /// The socket, as in [`crate::ConnectRecord`].
    pub cookie: u64,
    /// When it was opened.
    pub opened_boot_time_ns: u64,
    /// Payload sent, without repetitions.
    pub bytes_out: u64,
    /// Payload received.
    pub bytes_in: u64,
    /// Destination; an IPv4 address is in the first four bytes. Network order.
    pub address: [u8; 16],
    /// Own address, of TCP connections that were established.
    pub local_address: [u8; 16],
    /// See [`crate::AddressFamily`].
    pub family: u16,
    /// Destination port, host order.
    pub port: u16,
    /// Own port, host order; 0 when unknown.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 for datagrams on an unconnected socket.
    pub unconnected: u8,
    /// The socket's error (errno.h), 0 for none.
    pub error: u32,
    /// See [`Progress`].
    pub progress: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// A socket that is neither TCP nor UDP nor local was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRecord {
    /// Who and when.
    pub header: Header,
    /// `AF_*` (include/linux/socket.h).
    pub family: u32,
    /// `SOCK_*` (include/linux/net.h).
    pub kind: u32,
    /// As given to socket(2); 0 when that is not known.
    pub protocol: u32,
    /// 1 when the socket was noticed by something that the process sent.
    pub by_send: u32,
}

/// How a connection introduced itself: the beginning of what it sent first. The header's process is the socket's user.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PayloadRecord {
    /// Who and when.
    pub header: Header,
    /// The socket, as in [`crate::ConnectRecord`].
    pub cookie: u64,
    /// Bytes of `payload` that are valid.
    pub length: u16,
    /// A [`PayloadKind`].
    pub kind: u16,
    /// Zero.
    pub padding: u32,
    /// TLS: the start of the first record. Proxy: the request line, then zeros.
    pub payload: Payload,
}

/// Bytes that can be looked at eight at a time.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Payload(pub [u8; PAYLOAD_BYTES]);

/// What a [`PayloadRecord`] is.
pub struct PayloadKind;

impl PayloadKind {
    /// The first bytes of a TLS `ClientHello`.
    pub const HELLO: u16 = 1;
    /// The bytes behind those of the record before.
    pub const HELLO_MORE: u16 = 2;
    /// The request line of HTTP's CONNECT.
    pub const PROXY: u16 = 3;
}

const _: () = assert!(size_of::<ClosedRecord>() == 128);
const _: () = assert!(size_of::<SocketRecord>() == 64);
const _: () = assert!(size_of::<PayloadRecord>() == 64 + PAYLOAD_BYTES);
