//! What /proc says about a live process. It may have ended or become another meanwhile, so every answer is checked or
//! left out.

use std::{
    fs,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
};

use crate::sensor::records::Exec;

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
