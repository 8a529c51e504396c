//! What single operations cost: the rows of the table that `cargo xtask bench micro` prints.
//!
//! In: a directory that [`prepare`] filled. Out: for each row how often it was done and the processor time that it took, this
//! process's with its children's and, if asked for, another process's (the agent's). Time is what the kernel's scheduler
//! counts; in a guest whose clock counts instructions, those.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    sys::resource::{UsageWho, getrusage},
};

use crate::place::SECRET;

/// Secrets in one directory: the agent watches at most 1,024 by one pattern.
const SECRETS_IN_ONE: u32 = 1000;
/// Part of a row that is done first, and not counted.
const WARM_UP: u32 = 10;
/// In which the agent takes what was left of a row.
const SETTLE: Duration = Duration::from_millis(1500);

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The program's argument.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// How often it is done.
    pub count: u32,
    /// In a step of a build job.
    pub in_job: bool,
    run: fn(&Path, u32) -> Result<()>,
}

/// All rows.
pub const ROWS: [Row; 7] = [
    row("syscall", "any system call", 400_000, false, syscalls),
    row("open-outside", "ordinary open, outside a job", 40_000, false, opens),
    row("open-inside", "ordinary open, inside a job", 40_000, true, opens),
    row("watched", "watched open, event delivered", 4_000, true, secrets),
    row("connect", "connect cycle, event delivered", 4_000, true, connections),
    row("request", "connection with a request and an answer", 2_000, true, requests),
    row("exec", "fork and exec, event delivered", 400, true, executions),
];

const fn row(
    name: &'static str,
    what: &'static str,
    count: u32,
    in_job: bool,
    run: fn(&Path, u32) -> Result<()>,
) -> Row {
    Row { name, what, count, in_job, run }
}

/// Processor time, in nanoseconds, of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How often it was done.
    pub count: u32,
    /// In the process itself, hooks included.
    pub inline: u64,
    /// In the agent; 0 when there was none.
    pub agent: u64,
}

/// Makes what the rows need.
///
/// # Errors
/// When it cannot be written.
pub fn prepare(directory: &Path) -> Result<()> {
    let watched = ROWS.iter().find(|row| row.name == "watched").map_or(0, |row| row.count);
    for index in 0..watched + watched / WARM_UP {
        let secret = secret(directory, index);
        fs::create_dir_all(secret.parent().context("no directory")?)?;
        fs::write(&secret, SECRET).with_context(|| format!("cannot write {}", secret.display()))?;
    }
    fs::write(plain(directory), "nothing of interest\n").context("cannot write a file")
}

/// Settings that make the secrets known to the agent.
#[must_use]
pub fn settings(directory: &Path) -> String {
    let group = |number: u32| {
        let at = directory.join(format!("secrets-{number}")).display().to_string();
        format!("[[catalog.files]]\nname = \"measured\"\nfamily = \"measured\"\npath = \"{at}/*.key\"\n")
    };
    (0..5).map(group).collect()
}

/// `micro prepare DIRECTORY`, `micro DIRECTORY AGENT ROW…` (agent 0: none), `micro nothing`.
///
/// # Errors
/// When the words say nothing, or it fails.
pub fn act(words: &[&str]) -> Result<()> {
    match words {
        ["nothing"] => Ok(()),
        ["prepare", directory] => prepare(Path::new(directory)),
        [directory, agent, rows @ ..] => {
            let agent = agent.parse().context("expected the number of a process")?;
            for name in rows {
                let row = ROWS.iter().find(|row| row.name == *name);
                let cost =
                    measure(row.with_context(|| format!("no row {name}"))?, Path::new(directory), agent)?;
                writeln!(std::io::stdout(), "{name} {} {} {}", cost.count, cost.inline, cost.agent)?;
            }
            Ok(())
        }
        _ => bail!("usage: micro DIRECTORY AGENT ROW… | micro prepare DIRECTORY"),
    }
}

/// Reads what [`act`] wrote.
#[must_use]
pub fn parse(text: &str) -> Vec<(&'static Row, Cost)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let row = ROWS.iter().find(|row| row.name == name)?;
        let count = words.next()?.parse().ok()?;
        let (inline, agent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((row, Cost { count, inline, agent }))
    };
    text.lines().filter_map(line).collect()
}

fn measure(row: &Row, directory: &Path, agent: i32) -> Result<Cost> {
    (row.run)(directory, row.count / WARM_UP)?;
    thread::sleep(SETTLE);
    let agents_before = if agent == 0 { 0 } else { time_of(agent)? };
    let before = own_time()?;
    (row.run)(directory, row.count)?;
    let inline = own_time()? - before;
    thread::sleep(SETTLE);
    let agents = if agent == 0 { 0 } else { time_of(agent)? - agents_before };
    Ok(Cost { count: row.count, inline, agent: agents })
}

/// Of this process and the children that it has waited for.
fn own_time() -> Result<u64> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let nanoseconds = |time: nix::sys::time::TimeVal| -> Result<u64> {
        Ok(u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_usec() * 1000)?)
    };
    Ok(time_of(0)? + nanoseconds(children.user_time())? + nanoseconds(children.system_time())?)
}

/// What a process has used: a clock of its own (include/linux/posix-timers.h, `make_process_cpuclock`, `CPUCLOCK_SCHED`).
fn time_of(process: i32) -> Result<u64> {
    let clock = if process == 0 { libc::CLOCK_PROCESS_CPUTIME_ID } else { (!process << 3) | 2 };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one such structure.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "process {process} has no clock: {}", std::io::Error::last_os_error());
    Ok(u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec)?)
}

fn plain(directory: &Path) -> PathBuf {
    directory.join("plain")
}

fn secret(directory: &Path, index: u32) -> PathBuf {
    directory.join(format!("secrets-{}/{index}.key", index / SECRETS_IN_ONE))
}

fn syscalls(_directory: &Path, count: u32) -> Result<()> {
    for _ in 0..count {
        call!(SYS_getppid)?;
    }
    Ok(())
}

fn opens(directory: &Path, count: u32) -> Result<()> {
    let path = plain(directory);
    for _ in 0..count {
        File::open(&path)?;
    }
    Ok(())
}

/// Each file once: the agent merges what one process does with one file. The warm-up has files of its own, the last ones.
fn secrets(directory: &Path, count: u32) -> Result<()> {
    let all = ROWS.iter().find(|row| row.name == "watched").map_or(0, |row| row.count);
    let first = if count == all { 0 } else { all };
    for index in first..first + count {
        File::open(secret(directory, index))?;
    }
    Ok(())
}

fn connections(_directory: &Path, count: u32) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    for _ in 0..count {
        let client = TcpStream::connect(address)?;
        let server = listener.accept()?;
        drop((client, server));
    }
    Ok(())
}

fn requests(_directory: &Path, count: u32) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (question, answer) = ([b'?'; 512], [b'!'; 4096]);
    for _ in 0..count {
        let mut client = TcpStream::connect(address)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(&question)?;
        std::io::Read::read_exact(&mut server, &mut [0; 512])?;
        server.write_all(&answer)?;
        std::io::Read::read_exact(&mut client, &mut [0; 4096])?;
    }
    Ok(())
}

fn executions(_directory: &Path, count: u32) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    for _ in 0..count {
        let status = Command::new(&program).args(["micro", "nothing"]).status()?;
        ensure!(status.success(), "a program that does nothing ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_read_again() {
        let found = parse("open-inside 10 20 30\nno such row 1 2 3\nexec 1 2\n");
        let cost = Cost { count: 10, inline: 20, agent: 30 };
        assert_eq!(
            found.iter().map(|(row, cost)| (row.name, *cost)).collect::<Vec<_>>(),
            [("open-inside", cost)]
        );
    }

    #[test]
    fn processor_time_only_grows() {
        let before = own_time().unwrap();
        syscalls(Path::new("/"), 1000).unwrap();
        assert!(own_time().unwrap() > before);
    }
}
