//! What the eBPF programs and the agent agree on: record layouts, bounds, counters and kernel offsets.
//!
//! In: nothing. Out: `repr(C)` types whose sizes are asserted at compile time. Must never hold behaviour, allocate, or
//! depend on anything but `core`.
#![no_std]

mod members;
mod network;
mod offsets;
mod reader;
mod records;
mod watch;

pub use members::{MEMBERS, ProcessKey, RUNNER_NAME_BYTES, RunnerName, runner_name};
pub use network::{ClosedRecord, PAYLOAD_BYTES, Payload, PayloadKind, PayloadRecord, Progress, SocketRecord};
pub use offsets::{ABSENT, Member, OFFSET_FIELDS, Offsets};
pub use reader::{Reader, WAKE_SLACK, wake_mark};
pub use records::{
    AddressFamily, ConnectRecord, DNS_PAYLOAD_BYTES, DnsRecord, EXEC_ARGUMENT_BYTES, EXEC_DATA_BYTES,
    EXEC_ENVIRONMENT_BYTES, EXEC_FILENAME_BYTES, ExecFlags, ExecRecord, ExitRecord, FILE_PATH_BYTES,
    FileAction, FileMatch, FileRecord, ForkRecord, Header, Kind, MemoryMethod, MemoryRecord, Truncation,
    UNIX_PATH_BYTES, UnixConnectRecord,
};
pub use watch::{FILTER_WORDS, FileKey, NameKey, filter_bit, name_key};

/// The source of the record layouts: two builds whose texts agree read each other's records.
pub const LAYOUT: &str =
    concat!(include_str!("lib.rs"), include_str!("network.rs"), include_str!("records.rs"));

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
    /// Packets that leave: DNS questions, first payloads, destinations of sockets beside TCP and UDP.
    PacketOut = 7,
    /// Packets that arrive: DNS answers.
    PacketIn = 8,
    /// `connect` on a unix socket.
    UnixConnect = 9,
    /// Open of a secret file.
    FileOpen = 10,
    /// Descriptor of a secret file received from another process.
    FileReceive = 11,
    /// Secret file mapped into memory.
    FileMap = 12,
    /// Rights of a secret file changed.
    FileMode = 13,
    /// New name of a secret file.
    FileLink = 14,
    /// Name of a secret file removed.
    FileUnlink = 15,
    /// Secret file renamed or replaced.
    FileRename = 16,
    /// Access to another process's memory or descriptors.
    Memory = 17,
    /// A process lets its parent trace it.
    Traced = 18,
    /// Owner of a secret file changed.
    FileOwner = 19,
    /// Length of a secret file changed.
    FileTruncate = 20,
    /// TCP connection established or ended.
    TcpState = 21,
    /// Socket given up.
    SocketRelease = 22,
    /// IP socket that is neither TCP nor UDP opened.
    SocketInet = 23,
    /// Socket of a family other than IP opened.
    SocketOther = 24,
    /// Something sent on a socket that another process opened.
    SocketSend = 25,
}

impl Hook {
    /// Every hook, in the order of their numbers.
    pub const ALL: [Self; 26] = [
        Self::Fork,
        Self::Exec,
        Self::Exit,
        Self::Connect4,
        Self::Connect6,
        Self::Send4,
        Self::Send6,
        Self::PacketOut,
        Self::PacketIn,
        Self::UnixConnect,
        Self::FileOpen,
        Self::FileReceive,
        Self::FileMap,
        Self::FileMode,
        Self::FileLink,
        Self::FileUnlink,
        Self::FileRename,
        Self::Memory,
        Self::Traced,
        Self::FileOwner,
        Self::FileTruncate,
        Self::TcpState,
        Self::SocketRelease,
        Self::SocketInet,
        Self::SocketOther,
        Self::SocketSend,
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
            Self::PacketOut => "packet.out",
            Self::PacketIn => "packet.in",
            Self::UnixConnect => "connect.unix",
            Self::FileOpen => "file.open",
            Self::FileReceive => "file.receive",
            Self::FileMap => "file.map",
            Self::FileMode => "file.mode",
            Self::FileOwner => "file.owner",
            Self::FileTruncate => "file.truncate",
            Self::FileLink => "file.link",
            Self::FileUnlink => "file.unlink",
            Self::FileRename => "file.rename",
            Self::Memory => "memory.access",
            Self::Traced => "memory.traced",
            Self::TcpState => "tcp.state",
            Self::SocketRelease => "socket.release",
            Self::SocketInet => "socket.inet",
            Self::SocketOther => "socket.other",
            Self::SocketSend => "socket.send",
        }
    }
}

/// Records of one hook on one CPU since load. `happened` is what was emitted and what was lost, and the sequence number
/// of the newest: see [`Header::sequence`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Records that were begun.
    pub happened: u64,
    /// Records that reached their ring buffer.
    pub emitted: u64,
    /// Records for which the ring buffer had no room.
    pub lost_ring_full: u64,
    /// Records for which no scratch slot was free.
    pub lost_no_slot: u64,
    /// Records whose content could not be read.
    pub lost_unreadable: u64,
}

const _: () = assert!(size_of::<Counters>() == 40);
