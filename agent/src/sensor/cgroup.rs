//! The root of the version 2 cgroup hierarchy: what is attached there sees every process of the host.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

/// The root directory, open.
#[derive(Debug)]
pub struct CgroupRoot {
    directory: File,
}

impl AsFd for CgroupRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Finds the hierarchy wherever it is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1).
///
/// # Errors
///
/// A sentence that says what is missing.
pub fn find() -> Result<CgroupRoot, String> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
    let path: PathBuf = mounts
        .0
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup2" && mount.root == "/")
        .map(|mount| mount.mount_point)
        .ok_or(
            "no cgroup version 2 hierarchy is mounted: mount one with `mount -t cgroup2 none DIRECTORY`",
        )?;
    open(&path).map_err(|error| format!("cannot open {}: {error}", path.display()))
}

fn open(path: &PathBuf) -> io::Result<CgroupRoot> {
    Ok(CgroupRoot { directory: File::open(path)? })
}
