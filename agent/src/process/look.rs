//! What /proc says about a live process. It may have ended or become another meanwhile, so every answer is checked or
//! left out.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
};

use crate::sensor::records::{Exec, Variable};

/// Most of an environment or of arguments that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// The path of what `pid` runs, if it still runs the file of this execution; else the path that was given, made absolute
/// with the working directory where that is known.
#[must_use]
pub fn executable(pid: u32, exec: &Exec, working_directory: &[u8]) -> Vec<u8> {
    let link = format!("/proc/{pid}/exe");
    let same_file = fs::metadata(&link).is_ok_and(|metadata| metadata.ino() == exec.inode);
    if same_file && let Ok(path) = fs::read_link(&link) {
        return path.into_os_string().into_vec();
    }
    if exec.filename.starts_with(b"/") || working_directory.is_empty() {
        return exec.filename.clone();
    }
    [working_directory, b"/", &exec.filename].concat()
}

/// The working directory of `pid`; empty when it has ended.
#[must_use]
pub fn working_directory(pid: u32) -> Vec<u8> {
    fs::read_link(format!("/proc/{pid}/cwd")).map(|path| path.into_os_string().into_vec()).unwrap_or_default()
}

/// The control groups of `pid`, as /proc lists them.
#[must_use]
pub fn control_groups(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// What a process was given when it executed its program, as far as it still says so: it can have changed that. Of
/// variables the names, and the values of `allowed` only. `None` when it has ended, or has executed nothing.
#[must_use]
pub fn as_executed(pid: u32, parent_pid: u32, allowed: &BTreeSet<String>) -> Option<Exec> {
    let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let variable = |text: Vec<u8>| {
        let at = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
        let (name, value) = text.split_at(at);
        let is_allowed = std::str::from_utf8(name).is_ok_and(|name| allowed.contains(name));
        let value = is_allowed.then(|| value.get(1..).unwrap_or_default().to_vec());
        Variable { name: name.to_vec(), value }
    };
    let file = crate::sensor::files::FileId::of(&metadata);
    Some(Exec {
        filename: fs::read_link(format!("/proc/{pid}/exe")).ok()?.into_os_string().into_vec(),
        arguments: strings(pid, "cmdline"),
        variables: strings(pid, "environ").into_iter().map(variable).collect(),
        inode: file.inode,
        device: u32::try_from(file.device).unwrap_or_default(),
        parent_pid,
        ..Exec::default()
    })
}

/// Memory of this process itself that is really there; 0 when the kernel does not say.
#[must_use]
pub fn resident_bytes() -> u64 {
    let statistics = procfs::process::Process::myself().and_then(|own| own.statm());
    statistics.map_or(0, |statistics| statistics.resident.saturating_mul(procfs::page_size()))
}

fn strings(pid: u32, name: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(format!("/proc/{pid}/{name}"))
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    if read.is_err() || bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn of_a_live_processs_environment_only_allowed_values_are_taken() {
        let exec = as_executed(std::process::id(), 1, &BTreeSet::from(["PATH".to_owned()])).unwrap();
        assert_eq!(exec.value("PATH"), std::env::var_os("PATH").as_deref().map(OsStrExt::as_bytes));
        assert!(exec.variables.iter().all(|variable| variable.value.is_none() || variable.name == b"PATH"));
        assert!(exec.filename.starts_with(b"/") && !exec.arguments.is_empty());
        assert!(as_executed(u32::MAX, 1, &BTreeSet::new()).is_none());
    }
}
