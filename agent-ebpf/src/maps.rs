//! The maps that programs and agent share.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use buildtrail_agent_abi::{
    Counters, ExecRecord, FILTER_WORDS, FileKey, FileRecord, Hook, MEMBERS as MOST_MEMBERS, NameKey,
    ProcessKey, Reader, RunnerName, VariableName,
};

use crate::slots;

/// Never rate-limited: processes and credentials. The loader sets the real size.
#[btf_map]
pub static CRITICAL: RingBuf<u8, { 4 << 20 }> = RingBuf::new();

/// Connections and DNS.
#[btf_map]
pub static BULK: RingBuf<u8, { 1 << 20 }> = RingBuf::new();

/// When a record wakes the agent.
#[btf_map]
pub static READER: Array<Reader, 1> = Array::new();

/// Indexed by [`Hook`].
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { Hook::ALL.len() }> = PerCpuArray::new();

/// Environment variables whose values may leave the kernel.
#[btf_map]
pub static IDENTITY_VARIABLES: HashMap<VariableName, u8, 1024> = HashMap::new();

/// Bytes of the environment that one step looks at; also the longest value that is reported, with its name.
pub const CHUNK_BYTES: usize = 256;
/// Executions that can be assembled at the same moment.
pub const SLOTS: usize = 64;

/// Where an execution is assembled.
///
/// What changes from step to step through the environment is here and not on the stack, whose content the verifier
/// follows: 7.3's gave up after a million instructions, because every length of a name made another state.
#[repr(C)]
pub struct Slot {
    pub busy: u64,
    pub walk: Walk,
    pub name: Name,
    pub chunk: [u8; CHUNK_BYTES],
    pub record: ExecRecord,
}

/// State of the walk through the environment.
#[repr(C)]
pub struct Walk {
    pub at: u64,
    pub end: u64,
    /// Bytes of the record's variable data so far.
    pub out: u32,
    /// In the middle of a value that is longer than a chunk.
    pub skipping: u32,
    pub flags: u32,
    pub name_length: u32,
}

/// The name of the variable that is looked at, padded with zeros; aligned so that clearing it takes no loop.
#[repr(C, align(8))]
pub struct Name(pub VariableName);

// SAFETY: repr(C), and `busy` comes first.
unsafe impl slots::Slot for Slot {}

#[btf_map]
pub static EXEC_SLOTS: Array<Slot, SLOTS> = Array::new();

/// Accesses to secret files that can be assembled at the same moment.
pub const FILE_SLOTS_LENGTH: usize = 64;

/// Where an access to a secret file is assembled.
#[repr(C)]
pub struct FileSlot {
    pub busy: u64,
    pub record: FileRecord,
}

// SAFETY: repr(C), and `busy` comes first.
unsafe impl slots::Slot for FileSlot {}

#[btf_map]
pub static FILE_SLOTS: Array<FileSlot, FILE_SLOTS_LENGTH> = Array::new();

/// A bit for each watched file, directory and name; tells most other files away at the cost of a few instructions.
#[btf_map]
pub static WATCH_FILTER: Array<[u64; FILTER_WORDS], 1> = Array::new();

/// Watched files and directories; the value is a [`buildtrail_agent_abi::FileMatch`].
#[btf_map]
pub static WATCHED_FILES: HashMap<FileKey, u16, 16384> = HashMap::new();

/// Names that secrets have wherever they are.
#[btf_map]
pub static WATCHED_NAMES: HashMap<NameKey, u16, 1024> = HashMap::new();

/// The agent's own process, which looks at the files that it watches.
#[btf_map]
pub static AGENT: Array<u32, 1> = Array::new();

/// Losses that the agent has reported; written by it alone, for the one that comes after it.
#[btf_map]
pub static REPORTED: Array<Counters, { Hook::ALL.len() }> = Array::new();

/// What the executables of runners are called; written by the agent.
#[btf_map]
pub static RUNNER_NAMES: HashMap<RunnerName, u8, 64> = HashMap::new();

/// Runners: those that the agent knows, and who executed a program of such a name.
#[btf_map]
pub static RUNNERS: HashMap<ProcessKey, u8, 4096> = HashMap::new();

/// Descendants of runners, with the runner's child that they descend from. The agent removes those that have ended.
#[btf_map]
pub static MEMBERS: HashMap<ProcessKey, ProcessKey, MOST_MEMBERS> = HashMap::new();

/// What is known of a socket that reaches other hosts: packets and states are seen outside the process that uses it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Socket {
    /// The latest one.
    pub user: User,
    /// See [`SocketFlags`].
    pub flags: u32,
    pub cookie: u64,
    pub opened_boot_time_ns: u64,
    /// Payload of datagrams; TCP counts for itself.
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// The destination, as in a `ConnectRecord`.
    pub address: [u8; 16],
    pub local_address: [u8; 16],
    pub family: u16,
    pub port: u16,
    pub local_port: u16,
    pub protocol: u8,
    pub unconnected: u8,
    /// TCP sequence number at which a `ClientHello` goes on.
    pub hello_next: u32,
    /// Bytes of it that are to come.
    pub hello_left: u32,
    /// The process that used it before; 0 for none.
    pub former_tgid: u32,
}

/// A process with its rights.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct User {
    pub start_boot_time_ns: u64,
    pub tgid: u32,
    pub uid: u32,
    pub effective_uid: u32,
    pub padding: u32,
}

impl Socket {
    /// A socket that has reached nobody yet.
    #[inline(always)]
    pub fn of(user: User, cookie: u64) -> Self {
        Self {
            user,
            flags: 0,
            cookie,
            opened_boot_time_ns: 0,
            bytes_out: 0,
            bytes_in: 0,
            address: [0; 16],
            local_address: [0; 16],
            family: 0,
            port: 0,
            local_port: 0,
            protocol: 0,
            unconnected: 0,
            hello_next: 0,
            hello_left: 0,
            former_tgid: 0,
        }
    }
}

/// Bits of [`Socket::flags`].
pub struct SocketFlags;

impl SocketFlags {
    /// A destination was reported; its end is to be.
    pub const OPEN: u32 = 1;
    /// TCP: the handshake began.
    pub const STARTED: u32 = 2;
    /// TCP: the handshake is done.
    pub const ESTABLISHED: u32 = 4;
    /// Its destinations are known from its packets only.
    pub const BY_PACKET: u32 = 8;
    /// TCP: payload was sent.
    pub const SPOKEN: u32 = 16;
}

#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// The process that was last seen to send on a socket that is not IP's.
#[btf_map]
pub static SENDERS: SkStorage<u32> = SkStorage::new();

/// What is kept of a socket; null when it reaches nobody.
///
/// # Safety
///
/// `socket` must be what the program type takes as a socket, and not null.
#[inline(always)]
pub unsafe fn socket_of(socket: *mut c_void) -> *mut Socket {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: by contract.
    unsafe { bpf_sk_storage_get(map, socket, core::ptr::null_mut(), 0).cast() }
}

/// Keeps `value` of a socket, or finds what is kept already; null when the kernel has no memory.
///
/// # Safety
///
/// As for [`socket_of`].
#[inline(always)]
pub unsafe fn socket_or(socket: *mut c_void, value: &mut Socket) -> *mut Socket {
    let map = (&raw const SOCKETS).cast_mut().cast();
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: by contract.
    unsafe { bpf_sk_storage_get(map, socket, (&raw mut *value).cast(), flags).cast() }
}
