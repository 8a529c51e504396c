//! The process that only reads: what `reader` does.

use std::{fs, io::Write as _, net::TcpStream};

use anyhow::{Context as _, Result, bail};
use nix::libc;

use crate::{
    call,
    call::{own, read_secret},
};

/// Does what the words say.
///
/// # Errors
/// When they say nothing, or it fails.
pub fn act(words: &[&str]) -> Result<()> {
    match words {
        // A descriptor that it was born with.
        ["inherited", descriptor] => read_secret(own(descriptor.parse()?)?),
        // A descriptor that comes over the unix socket that it was born with.
        ["received", socket] => read_secret(call::receive(&own(socket.parse()?)?)?),
        // A descriptor of another process.
        ["taken", pid, descriptor] => {
            let process = own(call!(SYS_pidfd_open, pid.parse::<libc::pid_t>()?, 0)?)?;
            let descriptor: i32 = descriptor.parse()?;
            read_secret(own(call!(
                SYS_pidfd_getfd,
                std::os::fd::AsRawFd::as_raw_fd(&process),
                descriptor,
                0
            )?)?)
        }
        ["file", path] => fs::read(path).map(drop).with_context(|| format!("cannot read {path}")),
        // As late as a program that has to start an interpreter first.
        ["file-later", path] => {
            std::thread::sleep(std::time::Duration::from_millis(200));
            act(&["file", path])
        }
        ["send", descriptor] => {
            TcpStream::from(own(descriptor.parse()?)?).write_all(b"FAKE").context("cannot send")
        }
        ["send-received", socket] => {
            TcpStream::from(call::receive(&own(socket.parse()?)?)?).write_all(b"FAKE").context("cannot send")
        }
        ["nothing"] => Ok(()),
        _ => bail!("the reader does not know what to do"),
    }
}
