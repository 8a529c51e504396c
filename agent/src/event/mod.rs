//! From facts to audit events.
//!
//! In: processes, memberships and what the sensors saw. Out: `buildtrail.v1` bodies. Must never let bytes through that
//! are not text, nor an argument with a credential in it.

pub mod access;
pub mod connection;
pub mod dns;
pub mod hello;
pub mod stream;
pub mod text;

use buildtrail_proto::v1;

use crate::{
    catalog::{Entry, arguments, variables},
    process::Process,
    sensor::records::Exec,
};
use text::Notes;

/// A process, as events name it.
#[must_use]
pub fn process(process: &Process, notes: &mut Notes) -> v1::Process {
    v1::Process {
        pid: process.id.pid,
        start_boot_time_ns: process.id.start.0,
        parent_pid: process.parent_pid,
        executable: notes.text(&process.executable),
        uid: process.users.real,
        effective_uid: process.users.effective,
        container: process.container.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Body of `process.exec`.
#[must_use]
pub fn process_exec(exec: &Exec, working_directory: &[u8], notes: &mut Notes) -> v1::ProcessExec {
    let (argv, redacted) = arguments::redact(&exec.arguments);
    notes.truncated |= exec.truncated;
    v1::ProcessExec {
        filename: notes.text(&exec.filename),
        argv: argv.iter().map(|argument| notes.text(argument)).collect(),
        working_directory: notes.text(working_directory),
        device: u64::from(exec.device),
        inode: exec.inode,
        deleted: exec.deleted,
        credential_variables: credential_variables(exec, notes),
        redacted_arguments: redacted,
        loader_variables: names(exec, notes, variables::steers_loading),
    }
}

/// Names of the variables that carry credentials, each once.
#[must_use]
pub fn credential_variables(exec: &Exec, notes: &mut Notes) -> Vec<String> {
    names(exec, notes, variables::carries_credential)
}

fn names(exec: &Exec, notes: &mut Notes, chosen: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let mut names: Vec<String> = exec
        .variables
        .iter()
        .filter(|variable| chosen(&variable.name))
        .map(|variable| notes.text(&variable.name))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Body of `credential.use`.
#[must_use]
pub fn credential_use(kind: v1::CredentialKind, entry: Entry, target: String) -> v1::CredentialUse {
    v1::CredentialUse {
        kind: kind.into(),
        name: entry.name,
        family: entry.family,
        target,
        variables: Vec::new(),
    }
}

/// Body of `credential.use` for variables at exec.
#[must_use]
pub fn credential_environment(names: Vec<String>) -> v1::CredentialUse {
    v1::CredentialUse {
        kind: v1::CredentialKind::Environment.into(),
        name: "credential variables".to_owned(),
        family: "environment".to_owned(),
        target: String::new(),
        variables: names,
    }
}

/// A unix socket's path. An abstract name begins with a zero byte, which tools write as @ (unix(7)).
#[must_use]
pub fn socket_name(path: &[u8], notes: &mut Notes) -> String {
    match path.split_first() {
        Some((0, name)) => format!("@{}", notes.text(name)),
        _ => notes.text(path),
    }
}
