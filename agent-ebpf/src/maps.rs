//! The maps that programs and agent share.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage},
    macros::btf_map,
};
use buildtrail_agent_abi::{
    Counters, ExecRecord, FILTER_WORDS, FileKey, FileRecord, Hook, NameKey, VariableName,
};

use crate::slots;

/// Never rate-limited: processes and credentials. The loader sets the real size.
#[btf_map]
pub static CRITICAL: RingBuf<u8, { 4 << 20 }> = RingBuf::new();

/// Connections and DNS.
#[btf_map]
pub static BULK: RingBuf<u8, { 1 << 20 }> = RingBuf::new();

/// Indexed by [`Hook`].
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { Hook::ALL.len() }> = PerCpuArray::new();

/// Environment variables whose values may leave the kernel.
#[btf_map]
pub static IDENTITY_VARIABLES: HashMap<VariableName, u8, 128> = HashMap::new();

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

/// Who uses a socket: packets are seen outside the process that sent them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SocketOwner {
    pub start_boot_time_ns: u64,
    pub tgid: u32,
    pub uid: u32,
    pub effective_uid: u32,
    pub padding: u32,
}

#[btf_map]
pub static SOCKET_OWNERS: SkStorage<SocketOwner> = SkStorage::new();
