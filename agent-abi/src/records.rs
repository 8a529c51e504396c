//! Records in the ring buffers. Every record begins with a [`Header`].

/// Longest path given to execve that is reported, in bytes (the kernel's `PATH_MAX`).
pub const EXEC_FILENAME_BYTES: usize = 4096;
/// Most bytes of arguments that are reported.
pub const EXEC_ARGUMENT_BYTES: usize = 8192;
/// Most bytes of environment (names, and values of the allow-list) that are reported.
pub const EXEC_ENVIRONMENT_BYTES: usize = 8192;
/// All variable data of an [`ExecRecord`].
pub const EXEC_DATA_BYTES: usize = EXEC_FILENAME_BYTES + EXEC_ARGUMENT_BYTES + EXEC_ENVIRONMENT_BYTES;
/// Longest unix socket path (`UNIX_PATH_MAX`, include/uapi/linux/un.h).
pub const UNIX_PATH_BYTES: usize = 108;
/// Most bytes of a DNS message that are reported: more than resolvers announce with EDNS (RFC 9715: 1,400).
pub const DNS_PAYLOAD_BYTES: usize = 2048;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`ForkRecord`]
    Fork = 1,
    /// [`ExecRecord`]
    Exec = 2,
    /// [`ExitRecord`]
    Exit = 3,
    /// [`ConnectRecord`]
    Connect = 4,
    /// [`DnsRecord`]
    Dns = 5,
    /// [`UnixConnectRecord`]
    UnixConnect = 6,
}

/// Who and when, at the start of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u16,
    /// A [`crate::Hook`].
    pub hook: u16,
    /// Process.
    pub tgid: u32,
    /// Boot-time clock in nanoseconds.
    pub boot_time_ns: u64,
    /// When the process started, boot-time nanoseconds; 0 where the hook cannot know.
    pub start_boot_time_ns: u64,
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub effective_uid: u32,
}

/// A new process (not a new thread). The header is the creator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ForkRecord {
    /// Who and when.
    pub header: Header,
    /// When the child started, boot-time nanoseconds.
    pub child_start_boot_time_ns: u64,
    /// The child.
    pub child_tgid: u32,
    /// The child's parent as it sees it; not the creator after `CLONE_PARENT`.
    pub child_parent_tgid: u32,
}

/// Bits of [`ExecRecord::flags`].
pub struct ExecFlags;

impl ExecFlags {
    /// The executable has no name (unlinked, memfd).
    pub const DELETED: u32 = 1;
    /// The environment was not read to its end.
    pub const ENVIRONMENT_CUT: u32 = 2;
    /// The arguments were not read to their end.
    pub const ARGUMENTS_CUT: u32 = 4;
    /// Arguments or environment could not be read.
    pub const UNREADABLE: u32 = 8;
}

/// A program execution that succeeded. Followed in `data` by the file name, the arguments (each ended by a zero byte)
/// and the environment (`NAME` or, for the allow-list, `NAME=value`, each ended by a zero byte), without gaps; a
/// record in the ring buffer ends where its data ends.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ExecRecord {
    /// Who and when.
    pub header: Header,
    /// Inode number of the file that now runs.
    pub inode: u64,
    /// Its device, kernel encoding.
    pub device: u32,
    /// See [`ExecFlags`].
    pub flags: u32,
    /// Bytes of `data` that are the file name.
    pub filename_length: u32,
    /// Bytes of `data` after it that are the arguments.
    pub arguments_length: u32,
    /// Bytes of `data` after them that are the environment.
    pub environment_length: u32,
    /// The parent's process id.
    pub parent_tgid: u32,
    /// See above.
    pub data: [u8; EXEC_DATA_BYTES],
}

/// The last thread of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExitRecord {
    /// Who and when.
    pub header: Header,
    /// As wait(2) encodes it.
    pub exit_code: u32,
    /// Zero.
    pub padding: u32,
}

/// Address family of a [`ConnectRecord`] or [`DnsRecord`].
pub struct AddressFamily;

impl AddressFamily {
    /// `AF_INET`
    pub const V4: u16 = 2;
    /// `AF_INET6`
    pub const V6: u16 = 10;
}

/// A connection attempt or an unconnected datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectRecord {
    /// Who and when.
    pub header: Header,
    /// Destination; an IPv4 address is in the first four bytes. Network order.
    pub address: [u8; 16],
    /// See [`AddressFamily`].
    pub family: u16,
    /// Destination port, host order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 for a datagram on an unconnected socket.
    pub unconnected: u8,
    /// Zero.
    pub padding: u16,
}

/// Bits that say that something was cut.
pub struct Truncation;

impl Truncation {
    /// The DNS message is longer than [`DNS_PAYLOAD_BYTES`].
    pub const DNS: u8 = 1;
}

/// A DNS message over UDP. The header's process is the socket's owner; 0 when that is unknown.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DnsRecord {
    /// Who and when.
    pub header: Header,
    /// The resolver; an IPv4 address is in the first four bytes. Network order.
    pub resolver: [u8; 16],
    /// See [`AddressFamily`].
    pub family: u16,
    /// Bytes of `payload` that are valid.
    pub length: u16,
    /// 1 for a message that came in.
    pub incoming: u8,
    /// See [`Truncation`].
    pub truncation: u8,
    /// Zero.
    pub padding: u16,
    /// The message.
    pub payload: [u8; DNS_PAYLOAD_BYTES],
}

/// A successful connect to a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixConnectRecord {
    /// Who and when.
    pub header: Header,
    /// The process that listens; 0 when unknown.
    pub peer_tgid: u32,
    /// Bytes of `path` that are valid. An abstract name begins with a zero byte.
    pub path_length: u32,
    /// The socket's path as it was bound.
    pub path: [u8; UNIX_PATH_BYTES],
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Header>() == 32);
const _: () = assert!(size_of::<ForkRecord>() == 48);
const _: () = assert!(size_of::<ExecRecord>() == 64 + EXEC_DATA_BYTES);
const _: () = assert!(size_of::<ExitRecord>() == 40);
const _: () = assert!(size_of::<ConnectRecord>() == 56);
const _: () = assert!(size_of::<DnsRecord>() == 56 + DNS_PAYLOAD_BYTES);
const _: () = assert!(size_of::<UnixConnectRecord>() == 152);
