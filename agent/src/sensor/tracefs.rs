//! System call tracepoints are attached through tracefs, which minimal systems do not mount.

use std::{fs, io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const MOUNT_POINT: &str = "/sys/kernel/tracing";
/// An older place that also serves.
const DEBUG_MOUNT_POINT: &str = "/sys/kernel/debug/tracing";

/// Makes tracefs visible to this process alone: in a mount namespace of its own when the host has not mounted it. Later
/// mounts of the host still appear. Must be called before the process has a second thread.
///
/// # Errors
///
/// When the namespace or the mount is refused; hooks that need tracefs are then not covered.
pub fn ensure() -> io::Result<()> {
    if has_entries(MOUNT_POINT) || has_entries(DEBUG_MOUNT_POINT) {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tracefs"), MOUNT_POINT, Some("tracefs"), flags, none)?;
    Ok(())
}

fn has_entries(path: impl AsRef<Path>) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
