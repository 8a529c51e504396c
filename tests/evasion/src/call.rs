//! System calls as the kernel has them, and child processes.

use std::{
    ffi::CString,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _},
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Result, bail, ensure};
use nix::{
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// This machine has no such thing: not a failure of the technique.
#[derive(Debug)]
pub(crate) struct Absent(pub(crate) String);

impl std::fmt::Display for Absent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// An error that says that the machine has no such thing.
pub(crate) fn absent(what: impl Into<String>) -> anyhow::Error {
    Absent(what.into()).into()
}

/// A system call by its number; the arguments are integers, or pointers to values that outlive the call.
macro_rules! call {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::call::checked(
            // SAFETY: every pointer given here is to a live value that is as large as the call wants.
            unsafe { ::nix::libc::syscall(::nix::libc::$number, $($argument),*) },
        )
    };
}

/// The result, or the error that the kernel gave.
pub(crate) fn checked(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The path as the kernel takes it.
pub(crate) fn c(path: impl AsRef<Path>) -> Result<CString> {
    Ok(CString::new(path.as_ref().as_os_str().as_bytes())?)
}

/// Takes the descriptor that a call returned.
pub(crate) fn own(descriptor: i64) -> Result<OwnedFd> {
    let descriptor = RawFd::try_from(descriptor)?;
    ensure!(descriptor >= 0, "no descriptor");
    // SAFETY: the kernel has just made it for this process, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens with open(2) itself.
pub(crate) fn open(path: impl AsRef<Path>, flags: i32) -> Result<OwnedFd> {
    let path = c(path)?;
    own(call!(SYS_open, path.as_ptr(), flags, 0o600)?)
}

/// Reads the whole file; it must hold a fake secret.
pub(crate) fn read_secret(descriptor: OwnedFd) -> Result<()> {
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text)?;
    ensure!(text.starts_with("FAKE-not-a-"), "this is no fake secret");
    Ok(())
}

/// A child process.
#[derive(Debug)]
pub(crate) struct Child(pub(crate) i32);

/// Forks; the child does `work` and ends.
pub(crate) fn fork(work: impl FnOnce() -> Result<()>) -> Result<Child> {
    // SAFETY: this program has one thread where it forks, so the child can go on like its parent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            let status = match work() {
                Ok(()) => 0,
                Err(error) => crate::place::explain(&error),
            };
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(status) }
        }
        child => Ok(Child(child)),
    }
}

impl Child {
    /// Waits for its end; its status as wait(2) has it.
    pub(crate) fn wait(&self) -> Result<i32> {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        checked(i64::from(unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) }))?;
        Ok(status)
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn succeed(&self) -> Result<()> {
        let status = self.wait()?;
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 77 {
            return Err(absent("the child process found no such thing"));
        }
        ensure!(status == 0, "the child process ended with {status:#x}");
        Ok(())
    }

    /// Ends it.
    pub(crate) fn kill(&self) -> Result<()> {
        // SAFETY: a call without pointers, on a child that has not been waited for.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        self.wait().map(drop)
    }
}

/// A child that waits until it is killed, and has got as far as `first` leads.
pub(crate) fn waiting(first: impl FnOnce() -> Result<()>) -> Result<Child> {
    let (mut ours, theirs) = io::pipe()?;
    let child = fork(move || {
        first()?;
        io::Write::write_all(&mut &theirs, b"x")?;
        loop {
            std::thread::sleep(std::time::Duration::from_mins(1));
        }
    })?;
    let mut byte = [0];
    if ours.read(&mut byte)? == 0 {
        child.kill()?;
        bail!("the child process did not get ready");
    }
    Ok(child)
}

/// Lets executed programs inherit the descriptor.
pub(crate) fn inheritable(descriptor: &impl AsRawFd) -> Result<()> {
    // SAFETY: a call without pointers.
    checked(i64::from(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) }))?;
    Ok(())
}

/// Sends a descriptor over a unix socket.
pub(crate) fn send(socket: &impl AsRawFd, descriptor: &impl AsRawFd) -> Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// Receives a descriptor over a unix socket.
pub(crate) fn receive(socket: &impl AsRawFd) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::empty())?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            return own(i64::from(*descriptor));
        }
    }
    bail!("no descriptor came")
}
