//! Ring buffer bytes to typed records. A record that is too short or of an unknown kind is an error to count, not to
//! guess at.

mod network;

use buildtrail_agent_abi as abi;

use crate::{clock::BootTime, process::ProcessId};
pub use network::{Closed, Connect, Dns, Payload, Piece, Progress, Socket, SocketId};

/// Something that the eBPF side saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: BootTime,
    /// In which process. For DNS: the socket's owner, pid 0 when unknown.
    pub process: ProcessId,
    /// Real and effective user.
    pub users: Users,
    /// What.
    pub what: What,
}

/// A record's place among those of its hook on its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// An [`abi::Hook`] as a number.
    pub hook: u16,
    /// Which CPU.
    pub cpu: u32,
    /// 1, 2, 3, …
    pub sequence: u64,
}

/// Whose rights a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Real user.
    pub real: u32,
    /// Effective user.
    pub effective: u32,
}

/// What a [`Record`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A new process.
    Fork {
        /// The new process.
        child: ProcessId,
        /// Its parent, which need not be its creator.
        parent_pid: u32,
    },
    /// A program was executed.
    Exec(Box<Exec>),
    /// The process ended.
    Exit {
        /// Its memory was written to a core dump (`WCOREDUMP`, wait(2)).
        core_dumped: bool,
    },
    /// A connection attempt or unconnected datagram.
    Connect(Connect),
    /// The end of a connection or of a datagram socket.
    Closed(Closed),
    /// A socket beside TCP, UDP and unix.
    Socket(Socket),
    /// How a connection introduced itself.
    Payload(Payload),
    /// A DNS message.
    Dns(Dns),
    /// A file that is or may be a secret was touched.
    File(Box<FileTouch>),
    /// A reach for another process's memory or descriptors.
    Memory(Memory),
    /// A connection to a unix socket.
    UnixConnect {
        /// The listening process; 0 when unknown.
        peer_pid: u32,
        /// Path, or for an abstract name a zero byte and the name.
        path: Vec<u8>,
        /// Noticed by something that the process sent, not when it connected.
        by_send: bool,
    },
}

/// A program execution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Path given to execve.
    pub filename: Vec<u8>,
    /// Arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Environment variables: names, and values of the identity variables.
    pub variables: Vec<Variable>,
    /// File that runs.
    pub inode: u64,
    /// Its device, kernel encoding.
    pub device: u32,
    /// Parent process.
    pub parent_pid: u32,
    /// The file had no name.
    pub deleted: bool,
    /// Arguments, environment or path were cut at their bounds.
    pub truncated: bool,
}

impl Exec {
    /// Value of an identity variable.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.variables.iter().find(|variable| variable.name == name.as_bytes())?.value.as_deref()
    }
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: Vec<u8>,
    /// Only for identity variables.
    pub value: Option<Vec<u8>>,
}

/// What happened to a file that is or may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTouch {
    /// Device, kernel encoding.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// Inode number of the directory.
    pub directory: u64,
    /// Tells an inode from a later one of the same number.
    pub generation: u32,
    /// An [`abi::FileAction`] as a number.
    pub action: u16,
    /// An [`abi::FileMatch`].
    pub matched: u16,
    /// Number of the system call.
    pub call: u32,
    /// `PF_*` of the thread.
    pub task_flags: u32,
    /// As the process sees it, or only its last component.
    pub path: Vec<u8>,
    /// `path` is the last component only.
    pub name_only: bool,
}

/// A reach for another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Whose memory. Start 0: only the number is known, and it is that of the caller's pid namespace.
    pub target: ProcessId,
    /// An [`abi::MemoryMethod`] as a number.
    pub method: u32,
    /// `PTRACE_MODE_*`.
    pub mode: u32,
    /// The kernel refused.
    pub denied: bool,
}

/// Bytes that are no record of this build.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind needs.
    #[error("record of kind {kind} has {bytes} bytes, too few")]
    Short {
        /// The kind it claims.
        kind: u16,
        /// Its length.
        bytes: usize,
    },
    /// A kind that this build does not know.
    #[error("record of unknown kind {0}")]
    Kind(u16),
}

/// Types that any bytes are a valid value of.
///
/// # Safety
///
/// The type must be `repr(C)` of integers and arrays of them only.
unsafe trait Plain: Copy {}

// SAFETY: repr(C) of integers and arrays of them (agent-abi/src/records.rs).
unsafe impl Plain for abi::Header {}
// SAFETY: as above.
unsafe impl Plain for abi::ForkRecord {}
// SAFETY: as above.
unsafe impl Plain for ExecHead {}

// SAFETY: as above.
unsafe impl Plain for abi::MemoryRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::ExitRecord {}
// SAFETY: as above.
unsafe impl Plain for FileHead {}

/// [`abi::FileRecord`] without its path.
#[derive(Clone, Copy)]
#[repr(C)]
struct FileHead {
    header: abi::Header,
    inode: u64,
    directory: u64,
    device: u32,
    generation: u32,
    action: u16,
    matched: u16,
    flags: u32,
    path_length: u32,
    name_only: u32,
    call: u32,
    task_flags: u32,
}

const _: () = assert!(size_of::<FileHead>() + abi::FILE_PATH_BYTES == size_of::<abi::FileRecord>());

/// [`abi::ExecRecord`] without its data.
#[derive(Clone, Copy)]
#[repr(C)]
struct ExecHead {
    header: abi::Header,
    inode: u64,
    device: u32,
    flags: u32,
    filename_length: u32,
    arguments_length: u32,
    environment_length: u32,
    parent_tgid: u32,
}

const _: () = assert!(size_of::<ExecHead>() + abi::EXEC_DATA_BYTES == size_of::<abi::ExecRecord>());

fn read<T: Plain>(bytes: &[u8], kind: u16) -> Result<T, DecodeError> {
    if bytes.len() < size_of::<T>() {
        return Err(DecodeError::Short { kind, bytes: bytes.len() });
    }
    // SAFETY: the length was checked, `Plain` allows any bytes, and the read needs no alignment.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Decodes one record.
///
/// # Errors
///
/// [`DecodeError`] when the bytes are no record of this build.
pub fn decode(bytes: &[u8]) -> Result<(Record, Place), DecodeError> {
    let header: abi::Header = read(bytes, 0)?;
    let place = Place { hook: header.hook, cpu: header.cpu, sequence: header.sequence };
    let kind = header.kind;
    let what = match kind {
        k if k == abi::Kind::Fork as u16 => fork(&read(bytes, kind)?),
        k if k == abi::Kind::Exec as u16 => What::Exec(Box::new(exec(bytes)?)),
        k if k == abi::Kind::Exit as u16 => exit(&read(bytes, kind)?),
        k if k == abi::Kind::File as u16 => What::File(Box::new(file(bytes)?)),
        k if k == abi::Kind::Memory as u16 => What::Memory(memory(&read(bytes, kind)?)),
        k if k == abi::Kind::Connect as u16 => network::connect(&read(bytes, kind)?),
        k if k == abi::Kind::Dns as u16 => network::dns(&read(bytes, kind)?),
        k if k == abi::Kind::UnixConnect as u16 => network::unix_connect(&read(bytes, kind)?),
        k if k == abi::Kind::Closed as u16 => network::closed(&read(bytes, kind)?),
        k if k == abi::Kind::Socket as u16 => network::socket(&read(bytes, kind)?),
        k if k == abi::Kind::Payload as u16 => network::payload(bytes)?,
        other => return Err(DecodeError::Kind(other)),
    };
    let record = Record {
        time: BootTime(header.boot_time_ns),
        process: ProcessId { pid: header.tgid, start: BootTime(header.start_boot_time_ns) },
        users: Users { real: header.uid, effective: header.effective_uid },
        what,
    };
    Ok((record, place))
}

/// `WCOREFLAG`
const CORE_DUMPED: u32 = 0x80;

fn exit(record: &abi::ExitRecord) -> What {
    What::Exit { core_dumped: record.exit_code & CORE_DUMPED != 0 }
}

fn file(bytes: &[u8]) -> Result<FileTouch, DecodeError> {
    let kind = abi::Kind::File as u16;
    let head: FileHead = read(bytes, kind)?;
    let path = bytes[size_of::<FileHead>()..]
        .get(..head.path_length as usize)
        .ok_or(DecodeError::Short { kind, bytes: bytes.len() })?;
    Ok(FileTouch {
        device: head.device,
        inode: head.inode,
        directory: head.directory,
        generation: head.generation,
        action: head.action,
        matched: head.matched,
        call: head.call,
        task_flags: head.task_flags,
        path: path.strip_suffix(&[0]).unwrap_or(path).to_vec(),
        name_only: head.name_only != 0,
    })
}

fn memory(record: &abi::MemoryRecord) -> Memory {
    Memory {
        target: ProcessId { pid: record.target_tgid, start: BootTime(record.target_start_boot_time_ns) },
        method: record.method,
        mode: record.mode,
        denied: [-nix::libc::EPERM, -nix::libc::EACCES].contains(&record.result),
    }
}

fn fork(record: &abi::ForkRecord) -> What {
    What::Fork {
        child: ProcessId { pid: record.child_tgid, start: BootTime(record.child_start_boot_time_ns) },
        parent_pid: record.child_parent_tgid,
    }
}

fn exec(bytes: &[u8]) -> Result<Exec, DecodeError> {
    let kind = abi::Kind::Exec as u16;
    let head: ExecHead = read(bytes, kind)?;
    let data = &bytes[size_of::<ExecHead>()..];
    let short = || DecodeError::Short { kind, bytes: bytes.len() };
    let (filename, rest) = data.split_at_checked(head.filename_length as usize).ok_or_else(short)?;
    let (arguments, rest) = rest.split_at_checked(head.arguments_length as usize).ok_or_else(short)?;
    let environment = rest.get(..head.environment_length as usize).ok_or_else(short)?;
    let cut = abi::ExecFlags::ARGUMENTS_CUT | abi::ExecFlags::ENVIRONMENT_CUT | abi::ExecFlags::UNREADABLE;
    Ok(Exec {
        filename: strings(filename).next().unwrap_or_default().to_vec(),
        arguments: strings(arguments).map(<[u8]>::to_vec).collect(),
        variables: strings(environment).map(variable).collect(),
        inode: head.inode,
        device: head.device,
        parent_pid: head.parent_tgid,
        deleted: head.flags & abi::ExecFlags::DELETED != 0,
        truncated: head.flags & cut != 0 || filename.len() >= abi::EXEC_FILENAME_BYTES,
    })
}

/// Splits at zero bytes; a last string may lack its zero because it was cut.
fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    (!bytes.is_empty()).then(|| bytes.split(|&byte| byte == 0)).into_iter().flatten()
}

fn variable(entry: &[u8]) -> Variable {
    match entry.iter().position(|&byte| byte == b'=') {
        Some(at) => Variable { name: entry[..at].to_vec(), value: Some(entry[at + 1..].to_vec()) },
        None => Variable { name: entry.to_vec(), value: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec_bytes(filename: &[u8], arguments: &[u8], environment: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((abi::Kind::Exec as u16).to_le_bytes());
        bytes.extend((abi::Hook::Exec as u16).to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        bytes.extend(100_u64.to_le_bytes());
        bytes.extend(50_u64.to_le_bytes());
        bytes.extend([0; 24]);
        bytes.extend(9_u64.to_le_bytes());
        bytes.extend([0; 8]);
        for part in [filename, arguments, environment] {
            bytes.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        }
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend([filename, arguments, environment].concat());
        bytes
    }

    #[test]
    fn an_execution_is_split_into_path_arguments_and_variables() {
        let bytes = exec_bytes(b"/bin/sh\0", b"sh\0\0-c\0", b"GITHUB_JOB=a=b\0AWS_SECRET_ACCESS_KEY\0");
        let (record, _) = decode(&bytes).unwrap();
        let What::Exec(exec) = record.what else { panic!("not an exec") };
        assert_eq!(record.process, ProcessId { pid: 7, start: BootTime(50) });
        assert_eq!(exec.filename, b"/bin/sh");
        assert_eq!(exec.arguments, [b"sh".to_vec(), b"".to_vec(), b"-c".to_vec()]);
        assert_eq!(exec.value("GITHUB_JOB"), Some(&b"a=b"[..]));
        assert_eq!(exec.variables[1], Variable { name: b"AWS_SECRET_ACCESS_KEY".to_vec(), value: None });
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error() {
        let bytes = exec_bytes(b"/bin/sh\0", b"sh\0", b"A\0");
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let mut bytes = exec_bytes(b"", b"", b"");
        bytes[0] = 0xff;
        assert_eq!(decode(&bytes), Err(DecodeError::Kind(0x00ff)));
    }
}
