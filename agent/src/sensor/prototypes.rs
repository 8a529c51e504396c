//! The prototypes that the programs were written for, and whether this kernel has them.
//!
//! A program that takes its arguments from the wrong places would tell nonsense, so it is refused where they differ. The
//! arguments that programs use are compared; kernels may add others behind them.

use std::collections::BTreeMap;

use super::btf::{Btf, BtfError};

/// Functions and tracepoints whose prototype is another one in this kernel: name, and what it is.
pub type Differing = BTreeMap<&'static str, String>;

/// Kind of place, its name, types of its first arguments; alternatives separated by bars. A type that a kernel only
/// qualifies otherwise is the same.
pub const PROTOTYPES: &[(Place, &str, &[&str])] = &[
    (Place::Tracepoint, "sched_process_fork", &["struct task_struct *", "struct task_struct *"]),
    (Place::Tracepoint, "sched_process_exec", &["struct task_struct *", "pid_t", "struct linux_binprm *"]),
    (Place::Tracepoint, "sched_process_exit", &["struct task_struct *"]),
    (Place::Tracepoint, "inet_sock_set_state", &["struct sock *", "int", "int"]),
    (Place::Tracepoint, "sock_send_length", &["struct sock *", "int", "int"]),
    (Place::Function, "security_socket_post_create", &["struct socket *", "int", "int", "int", "int"]),
    (Place::Function, "security_unix_stream_connect", &["struct sock *", "struct sock *", "struct sock *"]),
    (Place::Function, "security_socket_sendmsg", &["struct socket *", "struct msghdr *", "int"]),
    (Place::Function, "security_file_open", &["struct file *"]),
    (Place::Function, "security_file_receive", &["struct file *"]),
    (Place::Function, "security_mmap_file", &["struct file *", "long unsigned int", "long unsigned int"]),
    (Place::Function, "security_path_chmod", &["struct path *", "umode_t"]),
    (Place::Function, "security_path_chown", &["struct path *", "kuid_t", "kgid_t"]),
    (Place::Function, "security_path_truncate", &["struct path *"]),
    (Place::Function, "security_inode_link", &["struct dentry *", "struct inode *", "struct dentry *"]),
    (Place::Function, "security_inode_unlink", &["struct inode *", "struct dentry *"]),
    (
        Place::Function,
        "security_inode_rename",
        &["struct inode *", "struct dentry *", "struct inode *", "struct dentry *", "unsigned int"],
    ),
    (Place::Function, "security_ptrace_access_check", &["struct task_struct *", "unsigned int"]),
    (Place::Function, "security_ptrace_traceme", &["struct task_struct *"]),
];

/// Where a program is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In front of a function (fentry).
    Function,
    /// At a tracepoint (`tp_btf`).
    Tracepoint,
}

/// Compares one prototype; `None` when the kernel has no such place.
///
/// # Errors
///
/// [`BtfError::Malformed`]
pub fn found(btf: &Btf<'_>, place: Place, name: &str) -> Result<Option<Vec<String>>, BtfError> {
    match place {
        Place::Function => btf.function(name),
        Place::Tracepoint => btf.tracepoint(name),
    }
}

/// What differs in this kernel. A place that it lacks does not: the load of its program says so.
#[must_use]
pub fn differing(btf: &Btf<'_>) -> Differing {
    let differs = |(place, name, expected): &(Place, &'static str, &[&str])| {
        let text = match found(btf, *place, name) {
            Ok(None) => return None,
            Ok(Some(found)) if is_same(&found, expected) => return None,
            Ok(Some(found)) => format!("{name}({})", found.join(", ")),
            Err(error) => error.to_string(),
        };
        Some((*name, text))
    };
    PROTOTYPES.iter().filter_map(differs).collect()
}

/// Whether the kernel's arguments begin with the expected ones.
#[must_use]
pub fn is_same(found: &[String], expected: &[&str]) -> bool {
    let same = |(found, expected): (&String, &&str)| expected.split('|').any(|one| one == found);
    found.len() >= expected.len() && found.iter().zip(expected).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_arguments_are_fine_and_other_ones_are_not() {
        let found = ["struct file *".to_owned(), "int".to_owned()];
        assert!(is_same(&found, &["struct file *"]));
        assert!(is_same(&found, &["struct file *", "unsigned int|int"]));
        assert!(!is_same(&found, &["struct path *"]));
        assert!(!is_same(&found, &["struct file *", "int", "int"]));
    }

    #[test]
    fn this_machines_kernel_has_the_documented_prototypes() {
        let Ok(data) = std::fs::read(crate::sensor::btf::VMLINUX) else { return };
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(differing(&btf), Differing::new());
    }
}
