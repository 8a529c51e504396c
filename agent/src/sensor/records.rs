//! Ring buffer bytes to typed records. A record that is too short or of an unknown kind is an error to count, not to
//! guess at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use buildtrail_agent_abi as abi;

use crate::{clock::BootTime, process::ProcessId};

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
    Exit,
    /// A connection attempt or unconnected datagram.
    Connect(Connect),
    /// A DNS message.
    Dns(Dns),
    /// A connection to a unix socket.
    UnixConnect {
        /// The listening process; 0 when unknown.
        peer_pid: u32,
        /// Path, or for an abstract name a zero byte and the name.
        path: Vec<u8>,
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
}

/// A DNS message on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Who was asked.
    pub resolver: IpAddr,
    /// An answer, not a question.
    pub incoming: bool,
    /// The message, or its start.
    pub payload: Vec<u8>,
    /// The message is longer than what was captured.
    pub truncated: bool,
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
unsafe impl Plain for abi::ConnectRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::DnsRecord {}
// SAFETY: as above.
unsafe impl Plain for abi::UnixConnectRecord {}
// SAFETY: as above.
unsafe impl Plain for ExecHead {}

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
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let header: abi::Header = read(bytes, 0)?;
    let kind = header.kind;
    let what = match kind {
        k if k == abi::Kind::Fork as u16 => fork(&read(bytes, kind)?),
        k if k == abi::Kind::Exec as u16 => What::Exec(Box::new(exec(bytes)?)),
        k if k == abi::Kind::Exit as u16 => What::Exit,
        k if k == abi::Kind::Connect as u16 => What::Connect(connect(&read(bytes, kind)?)),
        k if k == abi::Kind::Dns as u16 => What::Dns(dns(&read(bytes, kind)?)),
        k if k == abi::Kind::UnixConnect as u16 => unix_connect(&read(bytes, kind)?),
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Record {
        time: BootTime(header.boot_time_ns),
        process: ProcessId { pid: header.tgid, start: BootTime(header.start_boot_time_ns) },
        users: Users { real: header.uid, effective: header.effective_uid },
        what,
    })
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

fn connect(record: &abi::ConnectRecord) -> Connect {
    Connect {
        address: address(record.family, record.address),
        port: record.port,
        protocol: record.protocol,
        unconnected: record.unconnected != 0,
    }
}

fn dns(record: &abi::DnsRecord) -> Dns {
    let length = usize::from(record.length).min(abi::DNS_PAYLOAD_BYTES);
    Dns {
        resolver: address(record.family, record.resolver),
        incoming: record.incoming != 0,
        payload: record.payload[..length].to_vec(),
        truncated: record.truncation & abi::Truncation::DNS != 0,
    }
}

fn unix_connect(record: &abi::UnixConnectRecord) -> What {
    let length = (record.path_length as usize).min(abi::UNIX_PATH_BYTES);
    let path = &record.path[..length];
    // A path is bound with or without its zero; an abstract name begins with one.
    let end = match path {
        [0, ..] | [] => length,
        _ => path.iter().position(|&byte| byte == 0).unwrap_or(length),
    };
    What::UnixConnect { peer_pid: record.peer_tgid, path: path[..end].to_vec() }
}

fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == abi::AddressFamily::V4 {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
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
        bytes.extend([0; 8]);
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
        let record = decode(&bytes).unwrap();
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
