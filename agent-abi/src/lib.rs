//! What the eBPF programs and the agent agree on: record layouts, bounds, counters and kernel offsets.
//!
//! In: nothing. Out: `repr(C)` types whose sizes are asserted at compile time. Must never hold behaviour, allocate, or
//! depend on anything but `core`.
#![no_std]

mod offsets;
mod records;

pub use offsets::{ABSENT, Member, OFFSET_FIELDS, Offsets};
pub use records::{
    AddressFamily, ConnectRecord, DNS_PAYLOAD_BYTES, DnsRecord, EXEC_ARGUMENT_BYTES, EXEC_DATA_BYTES,
    EXEC_ENVIRONMENT_BYTES, EXEC_FILENAME_BYTES, ExecFlags, ExecRecord, ExitRecord, ForkRecord, Header, Kind,
    Truncation, UNIX_PATH_BYTES, UnixConnectRecord,
};

/// Longest name of an environment variable that is reported; longer ones are cut to it.
pub const VARIABLE_NAME_BYTES: usize = 48;

/// Key of the map of environment variables whose values may leave the kernel: the name, padded with zeros.
pub type VariableName = [u8; VARIABLE_NAME_BYTES];

/// Pads a variable's name to the map key; `None` when it is longer than [`VARIABLE_NAME_BYTES`].
#[must_use]
pub const fn variable_name(name: &str) -> Option<VariableName> {
    let bytes = name.as_bytes();
    if bytes.len() > VARIABLE_NAME_BYTES {
        return None;
    }
    let mut key = [0; VARIABLE_NAME_BYTES];
    let mut at = 0;
    while at < bytes.len() {
        key[at] = bytes[at];
        at += 1;
    }
    Some(key)
}

/// A hook that produces records; also the index of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Hook {
    /// Process creation.
    Fork = 0,
    /// Program execution.
    Exec = 1,
    /// Process end.
    Exit = 2,
    /// `connect` on IPv4.
    Connect4 = 3,
    /// `connect` on IPv6.
    Connect6 = 4,
    /// Unconnected datagram on IPv4.
    Send4 = 5,
    /// Unconnected datagram on IPv6.
    Send6 = 6,
    /// DNS question leaving.
    DnsOut = 7,
    /// DNS answer arriving.
    DnsIn = 8,
    /// `connect` on a unix socket.
    UnixConnect = 9,
}

impl Hook {
    /// Every hook, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
        Self::DnsOut,
        Self::DnsIn,
        Self::UnixConnect,
    ];

    /// The hook's name in coverage and loss events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fork => "process.fork",
            Self::Exec => "process.exec",
            Self::Exit => "process.exit",
            Self::Connect4 => "connect.ipv4",
            Self::Connect6 => "connect.ipv6",
            Self::Send4 => "datagram.ipv4",
            Self::Send6 => "datagram.ipv6",
            Self::DnsOut => "dns.question",
            Self::DnsIn => "dns.answer",
            Self::UnixConnect => "connect.unix",
        }
    }
}

/// Records of one hook since load. `emitted + lost` is what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Records that reached their ring buffer.
    pub emitted: u64,
    /// Records for which the ring buffer had no room.
    pub lost_ring_full: u64,
    /// Records for which no scratch slot was free.
    pub lost_no_slot: u64,
}

const _: () = assert!(size_of::<Counters>() == 24);
