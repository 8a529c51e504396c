//! The root of the version 2 cgroup hierarchy: what is attached there sees every process of the host.

use std::{
    ffi::{CStr, c_long},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use nix::{
    fcntl::{OFlag, openat},
    libc,
    sys::stat::Mode,
};

/// `FSOPEN_CLOEXEC`, `FSCONFIG_CMD_CREATE`, `FSMOUNT_CLOEXEC` (include/uapi/linux/mount.h).
const FSOPEN_CLOEXEC: c_long = 1;
const FSCONFIG_CMD_CREATE: c_long = 6;
const FSMOUNT_CLOEXEC: c_long = 1;

/// The root directory, open.
#[derive(Debug)]
pub struct CgroupRoot {
    directory: OwnedFd,
}

impl AsFd for CgroupRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Finds the hierarchy wherever it is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1). Where the
/// host has not mounted it, it is mounted for this process alone, at no path.
///
/// # Errors
///
/// A sentence that says what is missing.
pub fn find() -> Result<CgroupRoot, String> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
    let mounted = mounts.0.into_iter().find(|mount| mount.fs_type == "cgroup2" && mount.root == "/");
    let directory = match mounted {
        Some(mount) => File::open(&mount.mount_point)
            .map(OwnedFd::from)
            .map_err(|error| format!("cannot open {}: {error}", mount.mount_point.display()))?,
        None => mount_detached(c"cgroup2")
            .map_err(|error| format!("cgroup version 2 cannot be mounted: {error}"))?,
    };
    Ok(CgroupRoot { directory })
}

/// The root directory of a file system that is mounted nowhere and goes when the last descriptor is closed (Linux 5.2).
fn mount_detached(file_system: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the string is terminated and outlives the call.
    let context =
        unsafe { descriptor(libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), FSOPEN_CLOEXEC)) }?;
    let none = ptr::null::<libc::c_void>();
    // SAFETY: this command takes no key and no value.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only.
    let mount =
        unsafe { descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0)) }?;
    // What fsmount gives is only a place; the directory itself has to be opened.
    Ok(openat(&mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Takes what a system call returned.
///
/// # Safety
///
/// `result` must be a new descriptor that nobody else knows, or negative with the error in errno.
unsafe fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: by contract.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}
