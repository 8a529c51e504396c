//! Which eBPF object fits this kernel.
//!
//! In: nothing. Out: one of the two embedded objects. Kernels before 5.12 refuse any program that holds an atomic addition
//! with a result, or a comparison and exchange, even where it is never reached; for them the same programs are built
//! without (feature `before-5-12` of `agent-ebpf`). Must never decide by the kernel's version.

use std::{io, sync::OnceLock};

use aya::include_bytes_aligned;
use nix::{errno::Errno, libc};

static CURRENT: &[u8] = include_bytes_aligned!(env!("BUILDTRAIL_BPF_OBJECT"));
static BEFORE_5_12: &[u8] = include_bytes_aligned!(env!("BUILDTRAIL_BPF_OBJECT_BEFORE_5_12"));

/// `BPF_PROG_LOAD` and `BPF_PROG_TYPE_SOCKET_FILTER` (include/uapi/linux/bpf.h).
const PROG_LOAD: libc::c_long = 5;
const SOCKET_FILTER: u32 = 1;

/// What [`is_degraded`] means for whoever reads the coverage.
pub const GAP: &str = "This kernel is older than 5.12: executions and secret files on the 65th CPU and those behind it are \
     counted as lost, and ends of TCP connections can repeat a record's number.";

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`, as far as this needs it.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

const INSTRUCTIONS: u32 = 6;

/// Adds to a word of the stack and takes what was there before.
const FETCHING_ADDITION: [u64; INSTRUCTIONS as usize] = [
    0x0000_0000_0000_01b7, // r1 = 0
    0x0000_0000_fff8_1a7b, // *(u64 *)(r10 - 8) = r1
    0x0000_0001_0000_01b7, // r1 = 1
    0x0000_0001_fff8_1adb, // r1 = atomic_fetch_add(r10 - 8, r1)
    0x0000_0000_0000_00b7, // r0 = 0
    0x0000_0000_0000_0095, // exit
];

/// The object for this kernel.
pub(crate) fn choose() -> &'static [u8] {
    static CHOICE: OnceLock<bool> = OnceLock::new();
    if *CHOICE.get_or_init(lacks_atomics) { BEFORE_5_12 } else { CURRENT }
}

/// Whether the programs run without atomics that return something.
#[must_use]
pub fn is_degraded() -> bool {
    std::ptr::eq(choose(), BEFORE_5_12)
}

/// Any other refusal than of the instruction is left to the loader, which explains it.
fn lacks_atomics() -> bool {
    let attributes = ProgramLoad {
        program_type: SOCKET_FILTER,
        instructions: INSTRUCTIONS,
        code: FETCHING_ADDITION.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: bpf(2) reads the attributes, whose pointers are valid during the call; a descriptor that comes back is ours.
    let result = unsafe {
        let result = libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<ProgramLoad>());
        if let Ok(descriptor @ 0..) = libc::c_int::try_from(result) {
            libc::close(descriptor);
        }
        result
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(Errno::EINVAL as i32)
}
