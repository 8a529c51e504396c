//! Loads and attaches the eBPF programs, hook by hook, at the best tier that this kernel allows.
//!
//! In: the embedded object, offsets for this kernel. Out: attached programs and an honest account of what each hook got.
//! A tier is chosen by loading the real program, never by the kernel's version. Dropping [`Loaded`] detaches everything.

use std::os::fd::AsFd as _;

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{HashMap as BpfHashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FEntry, Program,
        ProgramError, TracePoint, tp_btf::BtfTracePoint,
    },
};
use aya_log::EbpfLogger;
use buildtrail_agent_abi::{Counters, Hook, Offsets, VariableName};
use tracing::{debug, warn};

use super::{
    SensorError,
    cgroup::CgroupRoot,
    coverage::{HookReport, Tier},
    files::KernelWatch,
};
use crate::error::with_causes;

/// The eBPF object that [`Loaded`] loads.
pub(crate) static OBJECT: &[u8] = include_bytes_aligned!(env!("BUILDTRAIL_BPF_OBJECT"));

/// Sizes of the ring buffers in bytes; powers of two, at least one page.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Processes and credentials.
    pub critical: u32,
    /// Connections and DNS.
    pub bulk: u32,
}

/// Attached programs. Dropping it detaches them.
#[derive(Debug)]
pub struct Loaded {
    ebpf: Ebpf,
    /// What each hook got.
    pub hooks: Vec<HookReport>,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
enum Attach {
    BtfTracepoint(&'static str),
    CgroupAddress,
    CgroupSocket,
    CgroupPackets(CgroupSkbAttachType),
    /// Calls of this name end here.
    SystemCalls(&'static [&'static str]),
    /// The program stands in front of this kernel function.
    Function(&'static str),
}

/// One way to serve a hook.
struct Candidate {
    tier: Tier,
    program: &'static str,
    attach: Attach,
    served_by: &'static str,
}

/// The ways to serve each hook, best first.
const PLAN: &[(Hook, &[Candidate])] = &[
    (
        Hook::Fork,
        &[tier_b("process_fork", Attach::BtfTracepoint("sched_process_fork"), "tp_btf/sched_process_fork")],
    ),
    (
        Hook::Exec,
        &[tier_b("process_exec", Attach::BtfTracepoint("sched_process_exec"), "tp_btf/sched_process_exec")],
    ),
    (
        Hook::Exit,
        &[tier_b("process_exit", Attach::BtfTracepoint("sched_process_exit"), "tp_btf/sched_process_exit")],
    ),
    (Hook::Connect4, &[tier_b("connect4", Attach::CgroupAddress, "cgroup/connect4")]),
    (Hook::Connect6, &[tier_b("connect6", Attach::CgroupAddress, "cgroup/connect6")]),
    (Hook::Send4, &[tier_b("sendmsg4", Attach::CgroupAddress, "cgroup/sendmsg4")]),
    (Hook::Send6, &[tier_b("sendmsg6", Attach::CgroupAddress, "cgroup/sendmsg6")]),
    (
        Hook::PacketOut,
        &[tier_b("packet_out", Attach::CgroupPackets(CgroupSkbAttachType::Egress), "cgroup_skb/egress")],
    ),
    (
        Hook::PacketIn,
        &[tier_b("packet_in", Attach::CgroupPackets(CgroupSkbAttachType::Ingress), "cgroup_skb/ingress")],
    ),
    (
        Hook::TcpState,
        &[tier_b("tcp_state", Attach::BtfTracepoint("inet_sock_set_state"), "tp_btf/inet_sock_set_state")],
    ),
    (Hook::SocketRelease, &[tier_b("socket_release", Attach::CgroupSocket, "cgroup/sock_release")]),
    (Hook::SocketInet, &[tier_b("socket_inet", Attach::CgroupSocket, "cgroup/sock_create")]),
    (
        Hook::SocketOther,
        &[
            tier_a("socket_other", "security_socket_post_create", "fentry/security_socket_post_create"),
            tier_b("socket_call", Attach::SystemCalls(&["socket"]), "tracepoint/sys_exit_socket"),
        ],
    ),
    (
        Hook::UnixConnect,
        &[
            tier_a(
                "unix_stream_connect",
                "security_unix_stream_connect",
                "fentry/security_unix_stream_connect",
            ),
            tier_b("unix_connect", Attach::SystemCalls(&["connect"]), "tracepoint/sys_exit_connect"),
        ],
    ),
    (
        Hook::SocketSend,
        &[
            tier_a("socket_send", "security_socket_sendmsg", "fentry/security_socket_sendmsg"),
            tier_b("socket_sent", Attach::BtfTracepoint("sock_send_length"), "tp_btf/sock_send_length"),
        ],
    ),
    (Hook::FileOpen, &[tier_a("file_open", "security_file_open", "fentry/security_file_open")]),
    (Hook::FileReceive, &[tier_a("file_receive", "security_file_receive", "fentry/security_file_receive")]),
    (Hook::FileMap, &[tier_a("file_map", "security_mmap_file", "fentry/security_mmap_file")]),
    (Hook::FileMode, &[tier_a("file_mode", "security_path_chmod", "fentry/security_path_chmod")]),
    (Hook::FileOwner, &[tier_a("file_owner", "security_path_chown", "fentry/security_path_chown")]),
    (
        Hook::FileTruncate,
        &[tier_a("file_truncate", "security_path_truncate", "fentry/security_path_truncate")],
    ),
    (Hook::FileLink, &[tier_a("file_link", "security_inode_link", "fentry/security_inode_link")]),
    (Hook::FileUnlink, &[tier_a("file_unlink", "security_inode_unlink", "fentry/security_inode_unlink")]),
    (Hook::FileRename, &[tier_a("file_rename", "security_inode_rename", "fentry/security_inode_rename")]),
    (
        Hook::Memory,
        &[
            tier_a("memory_access", "security_ptrace_access_check", "fentry/security_ptrace_access_check"),
            tier_b(
                "memory_call",
                Attach::SystemCalls(&["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"]),
                "tracepoint/sys_exit_{ptrace,process_vm_readv,process_vm_writev,pidfd_getfd}",
            ),
        ],
    ),
    (Hook::Traced, &[tier_a("memory_traced", "security_ptrace_traceme", "fentry/security_ptrace_traceme")]),
];

const fn tier_a(program: &'static str, function: &'static str, served_by: &'static str) -> Candidate {
    Candidate { tier: Tier::A, program, attach: Attach::Function(function), served_by }
}

const fn tier_b(program: &'static str, attach: Attach, served_by: &'static str) -> Candidate {
    Candidate { tier: Tier::B, program, attach, served_by }
}

/// Loads and attaches what this kernel allows.
///
/// # Errors
///
/// [`SensorError::NotPermitted`] when the kernel refuses eBPF to this process, [`SensorError::Load`] when the object as a
/// whole cannot be loaded. A hook that cannot be served is not an error but a [`HookReport`].
pub fn load(
    offsets: &Offsets,
    rings: RingSizes,
    identity_variables: &[VariableName],
    cgroup: Result<&CgroupRoot, &String>,
) -> Result<Loaded, SensorError> {
    let btf = Btf::from_sys_fs().map_err(|error| SensorError::Load(error.to_string()))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", offset_bytes(offsets).as_slice(), true)
        .override_global("AGENT_TGID", &std::process::id(), true)
        .map_max_entries("CRITICAL", rings.critical)
        .map_max_entries("BULK", rings.bulk)
        .load(OBJECT)
        .map_err(|error| SensorError::from_load(&error))?;
    allow_values_of(&mut ebpf, identity_variables)?;
    let hooks =
        PLAN.iter().map(|(hook, candidates)| serve(&mut ebpf, *hook, candidates, &btf, cgroup)).collect();
    Ok(Loaded { ebpf, hooks })
}

impl Loaded {
    /// The ring of processes and credentials. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when it is gone or not a ring buffer.
    pub fn take_critical(&mut self) -> Result<RingBuf<MapData>, SensorError> {
        self.take_ring("CRITICAL")
    }

    /// The ring of connections and DNS. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when it is gone or not a ring buffer.
    pub fn take_bulk(&mut self) -> Result<RingBuf<MapData>, SensorError> {
        self.take_ring("BULK")
    }

    /// What the programs themselves say, for the agent's log. `None` when that cannot be read, which loses no event.
    pub(super) fn kernel_log(&mut self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(&mut self.ebpf)
            .inspect_err(|error| warn!(%error, "messages of the eBPF programs cannot be read"))
            .ok()
    }

    /// The maps that say which files to report. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when one is gone or not what it should be.
    pub fn take_watch(&mut self) -> Result<KernelWatch, SensorError> {
        let mut take = |name: &str| {
            self.ebpf.take_map(name).ok_or_else(|| SensorError::Load(format!("map {name} is missing")))
        };
        let (filter, files, names) = (take("WATCH_FILTER")?, take("WATCHED_FILES")?, take("WATCHED_NAMES")?);
        KernelWatch::new(filter, files, names).map_err(|error| SensorError::Load(error.to_string()))
    }

    fn take_ring(&mut self, name: &str) -> Result<RingBuf<MapData>, SensorError> {
        let map =
            self.ebpf.take_map(name).ok_or_else(|| SensorError::Load(format!("map {name} is missing")))?;
        RingBuf::try_from(map).map_err(|error| SensorError::Load(error.to_string()))
    }

    /// Counters of each hook since load, summed over CPUs.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when the kernel refuses the look-up.
    pub fn counters(&self) -> Result<Vec<(Hook, Counters)>, SensorError> {
        let map =
            self.ebpf.map("COUNTERS").ok_or_else(|| SensorError::Load("map COUNTERS is missing".into()))?;
        let map: PerCpuArray<_, PodCounters> =
            PerCpuArray::try_from(map).map_err(|error| SensorError::Load(error.to_string()))?;
        Hook::ALL
            .into_iter()
            .map(|hook| {
                let values = map
                    .get(&u32::from(hook as u16), 0)
                    .map_err(|error| SensorError::Load(error.to_string()))?;
                Ok((hook, values.iter().fold(Counters::default(), |sum, PodCounters(one)| add(sum, *one))))
            })
            .collect()
    }
}

fn add(left: Counters, right: Counters) -> Counters {
    Counters {
        happened: left.happened + right.happened,
        emitted: left.emitted + right.emitted,
        lost_ring_full: left.lost_ring_full + right.lost_ring_full,
        lost_no_slot: left.lost_no_slot + right.lost_no_slot,
        lost_unreadable: left.lost_unreadable + right.lost_unreadable,
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCounters(Counters);

// SAFETY: repr(C) of u64 only, without padding; any bytes are a valid value.
unsafe impl aya::Pod for PodCounters {}

/// The offsets as the programs' read-only data has them.
fn offset_bytes(offsets: &Offsets) -> [u8; size_of::<Offsets>()] {
    // SAFETY: repr(C) of u32 members only, so there is no padding.
    unsafe { std::mem::transmute(*offsets) }
}

fn allow_values_of(ebpf: &mut Ebpf, names: &[VariableName]) -> Result<(), SensorError> {
    let map = ebpf
        .map_mut("IDENTITY_VARIABLES")
        .ok_or_else(|| SensorError::Load("map IDENTITY_VARIABLES is missing".into()))?;
    let mut map: BpfHashMap<_, VariableName, u8> =
        BpfHashMap::try_from(map).map_err(|error| SensorError::Load(error.to_string()))?;
    for name in names {
        map.insert(name, 1, 0).map_err(|error| SensorError::Load(error.to_string()))?;
    }
    Ok(())
}

fn serve(
    ebpf: &mut Ebpf,
    hook: Hook,
    candidates: &[Candidate],
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
) -> HookReport {
    let mut reasons = Vec::new();
    for candidate in candidates {
        match try_candidate(ebpf, candidate, btf, cgroup) {
            Ok(()) => return HookReport::served(hook.name(), candidate.tier, candidate.served_by),
            Err(reason) => {
                debug!(hook = hook.name(), candidate = candidate.served_by, %reason, "a way to serve a hook is refused");
                reasons.push(format!("{}: {reason}", candidate.served_by));
            }
        }
    }
    HookReport::uncovered(hook.name(), reasons.join("; "))
}

fn try_candidate(
    ebpf: &mut Ebpf,
    candidate: &Candidate,
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
) -> Result<(), String> {
    let program = ebpf.program_mut(candidate.program).ok_or("the object has no such program")?;
    attach(program, candidate.attach, btf, cgroup)
}

fn attach(
    program: &mut Program,
    how: Attach,
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
) -> Result<(), String> {
    match how {
        Attach::BtfTracepoint(name) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(brief)?;
            program.load(name, btf).map_err(brief)?;
            program.attach().map_err(brief)?;
        }
        Attach::Function(name) => {
            let program: &mut FEntry = program.try_into().map_err(brief)?;
            program.load(name, btf).map_err(brief)?;
            program.attach().map_err(brief)?;
        }
        Attach::SystemCalls(names) => {
            let program: &mut TracePoint = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            for name in names {
                program.attach("syscalls", &format!("sys_exit_{name}")).map_err(brief)?;
            }
        }
        Attach::CgroupAddress => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            // A link's programs always run beside those of others (kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`).
            program.attach(root.as_fd(), CgroupAttachMode::Single).map_err(brief)?;
        }
        Attach::CgroupSocket => {
            let program: &mut CgroupSock = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            program.attach(root.as_fd(), CgroupAttachMode::Single).map_err(brief)?;
        }
        Attach::CgroupPackets(direction) => {
            let program: &mut CgroupSkb = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            program.attach(root.as_fd(), direction, CgroupAttachMode::Single).map_err(brief)?;
        }
    }
    Ok(())
}

/// An error in one line: the verifier's log goes to debug output.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn brief(error: ProgramError) -> String {
    debug!(%error, "program refused");
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let statistics = ["processed ", "verification time ", "stack depth ", "subprog "];
            let says_why = |line: &&str| {
                !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start))
            };
            let last = log.lines().rev().find(says_why);
            last.map_or_else(|| io_error.to_string(), |line| format!("{io_error} ({})", line.trim()))
        }
        other => with_causes(other),
    }
}
