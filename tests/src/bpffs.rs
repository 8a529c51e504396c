//! A BPF file system that only one test sees, and that is gone with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Mounts one below `directory`, in a mount namespace of this thread and of the processes that it starts from now on.
///
/// # Errors
/// Without root, or where the kernel has no such file system.
pub fn mount_for_this_thread(directory: &Path) -> Result<PathBuf> {
    let place = directory.join("bpf");
    fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace: run as root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts of the new namespace private")?;
    mount(Some("bpf"), &place, Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("cannot mount a BPF file system")?;
    Ok(place)
}
