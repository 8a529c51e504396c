//! The ways to serve each hook, best first. Which one serves is found out by loading it.

use aya::programs::CgroupSkbAttachType;
use buildtrail_agent_abi::Hook;

use super::coverage::Tier;

/// How a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attach {
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
pub(super) struct Candidate {
    pub(super) tier: Tier,
    pub(super) program: &'static str,
    pub(super) attach: Attach,
    /// For people.
    pub(super) served_by: &'static str,
}

/// The ways to serve each hook, best first.
pub(super) const PLAN: &[(Hook, &[Candidate])] = &[
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
