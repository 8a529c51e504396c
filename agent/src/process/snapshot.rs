//! The processes that ran before the agent did.

use std::{fs, os::unix::ffi::OsStrExt as _, rc::Rc};

use super::{Process, ProcessId};
use crate::{clock::BootTime, sensor::records::Users};

/// A process that ran before, and how it was started.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub process: Process,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
}

/// Lists all processes, parents before their children. Processes that end meanwhile are left out.
#[must_use]
pub fn snapshot() -> Vec<Found> {
    let Ok(all) = procfs::process::all_processes() else { return Vec::new() };
    let mut found: Vec<Found> = all.filter_map(|process| describe(&process.ok()?)).collect();
    found.sort_by_key(|found| (found.process.id.start, found.process.id.pid));
    found
}

fn describe(process: &procfs::process::Process) -> Option<Found> {
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
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = command_line.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    Some(Found { process: entry, arguments })
}
