//! Records about sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buildtrail_agent_abi as abi;

use super::{DecodeError, Plain, What, read};
use crate::clock::BootTime;

/// The kernel's number of a socket, unique since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketId(pub u64);

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// v4-mapped v6 addresses are v4 here.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// A datagram without connect.
    pub unconnected: bool,
    /// Another process had opened the connection.
    pub taken_over: bool,
    /// Of which socket.
    pub socket: SocketId,
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Nothing left the host.
    None,
    /// The handshake began.
    Started,
    /// It was there.
    Established,
}

/// The end of what began with a [`Connect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// What ended; the latest destination of an unconnected socket.
    pub connect: Connect,
    /// When it began.
    pub opened: BootTime,
    /// Own address and port, where known.
    pub local: Option<(IpAddr, u16)>,
    /// Payload sent.
    pub bytes_out: u64,
    /// Payload received.
    pub bytes_in: u64,
    /// The kernel's error number, 0 for none.
    pub error: u32,
    /// How far it got; datagram sockets are at [`Progress::None`].
    pub progress: Progress,
}

/// A socket beside TCP, UDP and unix was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// `AF_*`
    pub family: u32,
    /// `SOCK_*`
    pub kind: u32,
    /// As given to socket(2).
    pub protocol: u32,
    /// Noticed by something that the process sent, not when the socket was opened.
    pub by_send: bool,
}

/// How a connection introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Of which socket.
    pub socket: SocketId,
    /// An [`abi::PayloadKind`].
    pub kind: u16,
    /// A TLS record or a request line, or its start.
    pub bytes: Vec<u8>,
}

/// A DNS message on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Who was asked.
    pub resolver: IpAddr,
    /// An answer, not a question.
    pub incoming: bool,
    /// Over TCP: the bytes are a piece of a stream.
    pub stream: Option<Piece>,
    /// The message, or its start.
    pub payload: Vec<u8>,
    /// The message is longer than what was captured.
    pub truncated: bool,
}

/// A place in a TCP stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of which socket.
    pub socket: SocketId,
    /// Sequence number of the first byte.
    pub sequence: u32,
}

pub(super) fn connect(record: &abi::ConnectRecord) -> What {
    What::Connect(Connect {
        address: address(record.family, record.address),
        port: record.port,
        protocol: record.protocol,
        unconnected: record.unconnected != 0,
        taken_over: record.taken_over != 0,
        socket: SocketId(record.cookie),
    })
}

pub(super) fn closed(record: &abi::ClosedRecord) -> What {
    let local =
        (record.local_port != 0).then(|| (address(record.family, record.local_address), record.local_port));
    What::Closed(Closed {
        connect: Connect {
            address: address(record.family, record.address),
            port: record.port,
            protocol: record.protocol,
            unconnected: record.unconnected != 0,
            taken_over: false,
            socket: SocketId(record.cookie),
        },
        opened: BootTime(record.opened_boot_time_ns),
        local,
        bytes_out: record.bytes_out,
        bytes_in: record.bytes_in,
        error: record.error,
        progress: match record.progress {
            abi::Progress::ESTABLISHED => Progress::Established,
            abi::Progress::STARTED => Progress::Started,
            _ => Progress::None,
        },
    })
}

pub(super) fn socket(record: &abi::SocketRecord) -> What {
    What::Socket(Socket {
        family: record.family,
        kind: record.kind,
        protocol: record.protocol,
        by_send: record.by_send != 0,
    })
}

/// [`abi::PayloadRecord`] without its payload.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PayloadHead {
    header: abi::Header,
    cookie: u64,
    length: u16,
    kind: u16,
    padding: u32,
}

const _: () = assert!(size_of::<PayloadHead>() + abi::PAYLOAD_BYTES == size_of::<abi::PayloadRecord>());

pub(super) fn payload(bytes: &[u8]) -> Result<What, DecodeError> {
    let kind = abi::Kind::Payload as u16;
    let head: PayloadHead = read(bytes, kind)?;
    let payload = bytes[size_of::<PayloadHead>()..]
        .get(..usize::from(head.length))
        .ok_or(DecodeError::Short { kind, bytes: bytes.len() })?;
    Ok(What::Payload(Payload { socket: SocketId(head.cookie), kind: head.kind, bytes: payload.to_vec() }))
}

pub(super) fn dns(record: &abi::DnsRecord) -> What {
    let length = usize::from(record.length).min(abi::DNS_PAYLOAD_BYTES);
    What::Dns(Dns {
        resolver: address(record.family, record.resolver),
        incoming: record.incoming != 0,
        stream: (record.stream != 0)
            .then_some(Piece { socket: SocketId(record.cookie), sequence: record.sequence }),
        payload: record.payload[..length].to_vec(),
        truncated: record.truncation & abi::Truncation::DNS != 0,
    })
}

pub(super) fn unix_connect(record: &abi::UnixConnectRecord) -> What {
    let length = (record.path_length as usize).min(abi::UNIX_PATH_BYTES);
    let path = &record.path[..length];
    // A path is bound with or without its zero; an abstract name begins with one.
    let end = match path {
        [0, ..] | [] => length,
        _ => path.iter().position(|&byte| byte == 0).unwrap_or(length),
    };
    What::UnixConnect { peer_pid: record.peer_tgid, path: path[..end].to_vec(), by_send: record.by_send != 0 }
}

fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == abi::AddressFamily::V4 {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    }
}

// SAFETY: repr(C) of integers and arrays of them (agent-abi/src).
unsafe impl Plain for abi::ConnectRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::DnsRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::UnixConnectRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::ClosedRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::SocketRecord {}
// SAFETY: as above.
unsafe impl Plain for PayloadHead {}
