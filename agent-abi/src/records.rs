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
    /// [`FileRecord`]
    File = 7,
    /// [`MemoryRecord`]
    Memory = 8,
    /// [`crate::ClosedRecord`]
    Closed = 20,
    /// [`crate::SocketRecord`]
    Socket = 21,
    /// [`crate::PayloadRecord`]
    Payload = 22,
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
    /// 1, 2, 3, … for this hook on this CPU since load: a number that never comes is a record that was lost.
    pub sequence: u64,
    /// Which CPU.
    pub cpu: u32,
    /// Thread.
    pub thread: u32,
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
    /// 1 for a connection that another process had opened.
    pub taken_over: u8,
    /// Zero.
    pub padding: u8,
    /// The kernel's number of the socket, unique since boot.
    pub cookie: u64,
}

/// Bits that say that something was cut.
pub struct Truncation;

impl Truncation {
    /// The DNS message is longer than [`DNS_PAYLOAD_BYTES`].
    pub const DNS: u8 = 1;
}

/// A DNS message over UDP, or a piece of a stream of them over TCP. The header's process is the socket's owner; 0 when that is unknown.
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
    /// 1 over TCP: `payload` belongs at `sequence`, and messages stand behind their lengths.
    pub stream: u8,
    /// Zero.
    pub padding: u8,
    /// TCP sequence number of the first byte.
    pub sequence: u32,
    /// Zero.
    pub more_padding: u32,
    /// The socket, as in [`ConnectRecord`].
    pub cookie: u64,
    /// The message.
    pub payload: [u8; DNS_PAYLOAD_BYTES],
}

/// A connection to a unix socket.
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
    /// 1 when the connection was noticed by something that the process sent.
    pub by_send: u32,
}

/// Longest path of a [`FileRecord`], in bytes (the kernel's `PATH_MAX`).
pub const FILE_PATH_BYTES: usize = 4096;

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FileAction {
    /// Opened; [`FileRecord::flags`] are those of open(2).
    Open = 1,
    /// A descriptor came over a unix socket or with `pidfd_getfd`.
    Receive = 2,
    /// Mapped; the flags are the protection of mmap(2).
    Map = 3,
    /// Rights, owner or length are to change; the flags are the kernel's `ATTR_*`.
    Attributes = 4,
    /// Gets another name.
    Link = 5,
    /// Loses a name.
    Unlink = 6,
    /// Gets another name instead of its own.
    Rename = 7,
    /// Is replaced by another file that gets its name.
    Replace = 8,
}

/// Bits of [`FileRecord::matched`]: why the record was made.
pub struct FileMatch;

impl FileMatch {
    /// The file is one of the watched ones.
    pub const FILE: u16 = 1;
    /// Its directory is.
    pub const DIRECTORY: u16 = 2;
    /// Its name is that of a secret.
    pub const NAME: u16 = 4;
}

/// A file that is or may be a secret was touched. A record in the ring buffer ends where its path ends.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FileRecord {
    /// Who and when.
    pub header: Header,
    /// Inode number.
    pub inode: u64,
    /// Inode number of the directory that it was reached in.
    pub directory: u64,
    /// Device of both, kernel encoding.
    pub device: u32,
    /// Tells an inode from a later one of the same number.
    pub generation: u32,
    /// A [`FileAction`].
    pub action: u16,
    /// See [`FileMatch`].
    pub matched: u16,
    /// See [`FileAction`].
    pub flags: u32,
    /// Bytes of `path` that are valid, with the zero that ends it; 0 when only a name is known or none.
    pub path_length: u32,
    /// `path` is the last component only.
    pub name_only: u32,
    /// Number of the system call that the thread is in; meaningless in a thread of the kernel's.
    pub call: u32,
    /// `PF_*` of the thread (include/linux/sched.h).
    pub task_flags: u32,
    /// As the process sees it: from its root, in its mount namespace.
    pub path: [u8; FILE_PATH_BYTES],
}

/// How a process reached for another's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryMethod {
    /// By way of the file system: /proc/PID/mem and its neighbours.
    Proc = 0,
    /// ptrace(2)
    Ptrace = 1,
    /// `process_vm_readv`(2)
    ReadVector = 2,
    /// `process_vm_writev`(2)
    WriteVector = 3,
    /// `pidfd_getfd`(2)
    DescriptorOfProcess = 4,
}

/// A process reached for another's memory or descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryRecord {
    /// Who and when.
    pub header: Header,
    /// When the other process started, boot-time nanoseconds; 0 when unknown.
    pub target_start_boot_time_ns: u64,
    /// The other process.
    pub target_tgid: u32,
    /// A [`MemoryMethod`].
    pub method: u32,
    /// `PTRACE_MODE_*` (include/linux/ptrace.h); 0 when unknown.
    pub mode: u32,
    /// Result of the system call, as the kernel encodes it; 0 when the record was made before it was known.
    pub result: i32,
}

const _: () = assert!(size_of::<FileRecord>() == 48 + 48 + FILE_PATH_BYTES);
const _: () = assert!(size_of::<MemoryRecord>() == 72);
const _: () = assert!(size_of::<Header>() == 48);
const _: () = assert!(size_of::<ForkRecord>() == 64);
const _: () = assert!(size_of::<ExecRecord>() == 80 + EXEC_DATA_BYTES);
const _: () = assert!(size_of::<ExitRecord>() == 56);
const _: () = assert!(size_of::<ConnectRecord>() == 80);
const _: () = assert!(size_of::<DnsRecord>() == 88 + DNS_PAYLOAD_BYTES);
const _: () = assert!(size_of::<UnixConnectRecord>() == 168);
