//! The processes that ran before the agent did.

use std::{fs, os::unix::ffi::OsStrExt as _, rc::Rc};

use super::{Process, ProcessId};
use crate::{clock::BootTime, sensor::records::Users};

/// Lists all processes, parents before their children. Processes that end meanwhile are left out.
#[must_use]
pub fn snapshot() -> Vec<Process> {
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    let mut found: Vec<Process> = all.filter_map(|process| describe(&process.ok()?)).collect();
    found.sort_by_key(|process| (process.id.start, process.id.pid));
    found
}

fn describe(process: &procfs::process::Process) -> Option<Process> {
    let stat = process.stat().ok()?;
    let pid = u32::try_from(stat.pid).ok()?;
    let started = BootTime(stat.starttime.saturating_mul(super::COARSE_START));
    let parent = u32::try_from(stat.ppid).unwrap_or_default();
    let status = process.status().ok()?;
    let users = Users { real: status.ruid, effective: status.euid };
    let mut entry = Process::unknown(ProcessId { pid, start: started }, parent, users);
    if let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) {
        entry.executable = Rc::from(path.as_os_str().as_bytes());
    }
    Some(entry)
}
