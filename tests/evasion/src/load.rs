//! Load for the agent: opens that nobody watches, a storm of processes, reads of many secrets.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{call, place::SECRET};

/// Opens in one go, between two looks at the clock.
const BURST: u32 = 100;

/// Makes `count` fake secrets in `directory`.
///
/// # Errors
/// When one cannot be written.
pub fn make_secrets(directory: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    (0..count)
        .try_for_each(|index| fs::write(secret(directory, index), SECRET))
        .context("cannot write a secret")
}

fn secret(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("{index}.key"))
}

/// Does what the words say; prints how much was done.
///
/// # Errors
/// When they say nothing, or it fails.
pub fn act(words: &[&str]) -> Result<()> {
    let done = match words {
        ["opens", seconds, rate] => opens(Duration::from_secs(seconds.parse()?), rate.parse()?)?,
        ["connections", seconds] => connections(Duration::from_secs(seconds.parse()?))?,
        ["forks", seconds] => forks(Duration::from_secs(seconds.parse()?))?,
        ["reads", directory, count, seconds] => {
            reads(Path::new(directory), count.parse()?, Duration::from_secs(seconds.parse()?))?
        }
        _ => {
            bail!(
                "usage: load opens SECONDS RATE | load forks SECONDS | load connections SECONDS | \
                 load reads DIRECTORY COUNT SECONDS"
            )
        }
    };
    std::io::Write::write_all(&mut std::io::stdout(), format!("{done}\n").as_bytes())?;
    Ok(())
}

/// Opens of a file that is no secret, at most `rate` a second.
fn opens(time: Duration, rate: u32) -> Result<u64> {
    let (start, mut done) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        for _ in 0..BURST {
            File::open("/etc/passwd")?;
        }
        done += BURST;
        let due = Duration::from_secs_f64(f64::from(done) / f64::from(rate));
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok(u64::from(done))
}

/// Connections on loopback, on each processor in turn: so each goes on to the end.
fn connections(time: Duration) -> Result<u64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let processors = thread::available_parallelism()?.get();
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        let mut one = CpuSet::new();
        one.set(done % processors)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
        let client = TcpStream::connect(address)?;
        drop((listener.accept()?, client));
        done += 1;
    }
    Ok(done as u64)
}

/// Processes that end at once, as fast as one process can make them.
fn forks(time: Duration) -> Result<u64> {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        call::fork(|| Ok(()))?.succeed()?;
        done += 1;
    }
    Ok(done)
}

/// Reads each secret once, spread over the time.
fn reads(directory: &Path, count: usize, time: Duration) -> Result<u64> {
    let start = Instant::now();
    for index in 0..count {
        fs::read(secret(directory, index))?;
        let part = f64::from(u32::try_from(index + 1)?) / f64::from(u32::try_from(count)?);
        thread::sleep(time.mul_f64(part).saturating_sub(start.elapsed()));
    }
    Ok(count as u64)
}
