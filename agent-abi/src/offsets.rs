//! Offsets of kernel structure members, in bytes, as the running kernel's BTF gives them.

/// Value of a member that this kernel does not have; the feature that needs it is off.
pub const ABSENT: u32 = u32::MAX;

/// A member of a kernel structure that the eBPF programs read.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Field of [`Offsets`].
    pub field: &'static str,
    /// Kernel structure.
    pub structure: &'static str,
    /// Member, or members of members separated by dots; for kernels that differ, alternatives separated by bars.
    pub path: &'static str,
    /// Bytes; 0 for an aggregate of any size.
    pub width: u32,
    /// The structure that a pointer member points to; empty when it is no pointer or any.
    pub pointee: &'static str,
}

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident: $structure:literal $path:literal $width:literal $(-> $pointee:literal)?,)+) => {
        /// Byte offsets within the named kernel structures, injected into the eBPF programs as a read-only global.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct Offsets {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Offsets {
            /// All members absent.
            pub const fn absent() -> Self {
                Self { $($name: ABSENT,)+ }
            }

            /// The member by its field name here; `None` for a name that is not in [`OFFSET_FIELDS`].
            pub fn member_mut(&mut self, name: &str) -> Option<&mut u32> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }

        /// What each field of [`Offsets`] must be in the kernel's BTF.
        pub const OFFSET_FIELDS: &[Member] = &[
            $(Member {
                field: stringify!($name),
                structure: $structure,
                path: $path,
                width: $width,
                pointee: concat!("", $($pointee)?),
            },)+
        ];
    };
}

offsets! {
    /// Process id as user space calls it.
    task_tgid: "task_struct" "tgid" 4,
    /// Thread id.
    task_pid: "task_struct" "pid" 4,
    /// The thread that started the process.
    task_group_leader: "task_struct" "group_leader" 8 -> "task_struct",
    /// Parent that will be told of the end.
    task_real_parent: "task_struct" "real_parent" 8 -> "task_struct",
    /// Start in boot-time nanoseconds.
    task_start_boottime: "task_struct" "start_boottime" 8,
    /// Address space.
    task_mm: "task_struct" "mm" 8 -> "mm_struct",
    /// State shared by the process's threads.
    task_signal: "task_struct" "signal" 8 -> "signal_struct",
    /// Effective credentials.
    task_cred: "task_struct" "cred" 8 -> "cred",
    /// Open files.
    task_files: "task_struct" "files" 8 -> "files_struct",
    /// Status given to exit.
    task_exit_code: "task_struct" "exit_code" 4,
    /// `PF_*`.
    task_flags: "task_struct" "flags" 4,
    /// Live threads.
    signal_live: "signal_struct" "live.counter" 4,
    /// Effective user.
    cred_euid: "cred" "euid.val" 4,
    /// First byte of the arguments.
    mm_arg_start: "mm_struct" "arg_start" 8,
    /// One past the arguments.
    mm_arg_end: "mm_struct" "arg_end" 8,
    /// First byte of the environment.
    mm_env_start: "mm_struct" "env_start" 8,
    /// One past the environment.
    mm_env_end: "mm_struct" "env_end" 8,
    /// The file that now runs.
    binprm_file: "linux_binprm" "file" 8 -> "file",
    /// The path given to execve.
    binprm_filename: "linux_binprm" "filename" 8,
    /// A file's inode.
    file_inode: "file" "f_inode" 8 -> "inode",
    /// A socket file's socket.
    file_private_data: "file" "private_data" 8,
    /// Inode number.
    inode_number: "inode" "i_ino" 8,
    /// Names that the inode has.
    inode_links: "inode" "i_nlink" 4,
    /// File system of the inode.
    inode_super_block: "inode" "i_sb" 8 -> "super_block",
    /// Device of the file system.
    super_block_device: "super_block" "s_dev" 4,
    /// Table of open files.
    files_table: "files_struct" "fdt" 8 -> "fdtable",
    /// Array of open files.
    fdtable_array: "fdtable" "fd" 8,
    /// Length of that array.
    fdtable_length: "fdtable" "max_fds" 4,
    /// A socket's protocol state.
    socket_sock: "socket" "sk" 8 -> "sock",
    /// Address family.
    sock_family: "sock_common" "skc_family" 2,
    /// Process that created a listening unix socket.
    sock_peer_pid: "sock" "sk_peer_pid" 8 -> "pid",
    /// The other end of a unix socket.
    unix_peer: "unix_sock" "peer" 8 -> "sock",
    /// The name of a unix socket.
    unix_address: "unix_sock" "addr" 8 -> "unix_address",
    /// Length of that name, with the family.
    unix_address_length: "unix_address" "len" 4,
    /// The name itself, beginning with the family.
    unix_address_name: "unix_address" "name" 0,
    /// Since Linux 6.9, where process descriptors are files of their own file system.
    pid_file_number: "pid" "ino" 8,
    /// What a file system keeps with an inode.
    inode_private: "inode" "i_private" 8,
    /// Numbers of a process id, one for each namespace, the host's first.
    pid_numbers: "pid" "numbers" 0,
    /// A process number.
    upid_number: "upid" "nr" 4,
    /// Lowest byte of the kernel's stack.
    task_stack: "task_struct" "stack" 8,
    /// Code segment of the interrupted program.
    regs_segment: "pt_regs" "cs" 8,
    /// First argument of a system call on x86-64.
    regs_first_argument: "pt_regs" "di" 8,
    /// Second argument.
    regs_second_argument: "pt_regs" "si" 8,
    /// Third argument.
    regs_third_argument: "pt_regs" "dx" 8,
    /// Number of the system call.
    regs_number: "pt_regs" "orig_ax" 8,
    /// Where a file was found.
    file_path: "file" "f_path" 0,
    /// Its name there.
    file_dentry: "file" "f_path.dentry" 8 -> "dentry",
    /// The name that a path leads to.
    path_dentry: "path" "dentry" 8 -> "dentry",
    /// Flags of open(2).
    file_flags: "file" "f_flags" 4,
    /// The directory that a name stands in.
    dentry_parent: "dentry" "d_parent" 8 -> "dentry",
    /// The file that a name leads to.
    dentry_inode: "dentry" "d_inode" 8 -> "inode",
    /// Bytes of a name.
    dentry_name_length: "dentry" "d_name.len" 4,
    /// The name.
    dentry_name: "dentry" "d_name.name" 8,
    /// A copy of a short name within the entry itself; the union got its name in Linux 6.14.
    dentry_short_name: "dentry" "d_shortname.string|d_iname" 0,
    /// Tells an inode from a later one of the same number.
    inode_generation: "inode" "i_generation" 4,
    /// Pending error of a socket.
    sock_error: "sock" "sk_err" 4,
    /// `SOCK_DONE` and others.
    sock_flags: "sock_common" "skc_flags" 8,
    /// `SOCK_*`.
    sock_type: "sock" "sk_type" 2,
    /// IP protocol of a socket.
    sock_protocol: "sock" "sk_protocol" 2,
    /// Own port.
    sock_local_port: "sock_common" "skc_num" 2,
    /// Own address.
    sock_local_v4: "sock_common" "skc_rcv_saddr" 4,
    /// Own address.
    sock_local_v6: "sock_common" "skc_v6_rcv_saddr" 16,
    /// Payload sent, with repetitions.
    tcp_bytes_sent: "tcp_sock" "bytes_sent" 8,
    /// Repetitions of it.
    tcp_bytes_repeated: "tcp_sock" "bytes_retrans" 8,
    /// Sequence numbers received: payload, and one for the end.
    tcp_bytes_received: "tcp_sock" "bytes_received" 8,
}
