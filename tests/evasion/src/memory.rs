//! Ways into another process's memory and descriptors: each against an ordinary process and against the runner.

use std::{fs, os::fd::AsRawFd as _, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc;

use crate::{
    call::{self, Child, checked, own},
    expect::{Event, Family, Match, Match::Is, Match::True, Seen, Technique},
    place::Place,
};

const PTRACE: (&str, Match) = ("method", Is("MEMORY_METHOD_PTRACE"));
const VM_READ: (&str, Match) = ("method", Is("MEMORY_METHOD_PROCESS_VM_READ"));
const VM_WRITE: (&str, Match) = ("method", Is("MEMORY_METHOD_PROCESS_VM_WRITE"));
const GETFD: (&str, Match) = ("method", Is("MEMORY_METHOD_PIDFD_GETFD"));
const MEM: (&str, Match) = ("method", Is("MEMORY_METHOD_PROC_MEM"));
const INSPECT: (&str, Match) = ("method", Is("MEMORY_METHOD_PROC_INSPECT"));
const CORE: (&str, Match) = ("method", Is("MEMORY_METHOD_CORE_DUMP"));
const OF_RUNNER: (&str, Match) = ("target_is_runner", True);

const PROC_UNSEEN: &str =
    "Only security functions are behind all of /proc, and this kernel does not let programs stand there.";

const fn event(fields: &'static [(&'static str, Match)]) -> Event {
    Event { body: "memory_access", fields }
}

const fn both(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    events: &'static [Event],
) -> Technique {
    memory(name, what, run, Seen::Told(events), Seen::Told(events))
}

const fn memory(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    a: Seen,
    b: Seen,
) -> Technique {
    Technique { name, family: Family::Memory, what, run, a, b, never: &[] }
}

const fn of_proc(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    a: &'static [Event],
) -> Technique {
    memory(name, what, run, Seen::Told(a), Seen::Gap(PROC_UNSEEN))
}

pub(crate) const TECHNIQUES: &[Technique] = &[
    both("ptrace-attach", "ptrace attach", |_| on_child(attach), &[event(&[PTRACE])]),
    both(
        "ptrace-attach-runner",
        "ptrace attach to the runner",
        |_| on_runner(attach),
        &[event(&[PTRACE, OF_RUNNER])],
    ),
    both("ptrace-seize", "ptrace seize", |_| on_child(seize), &[event(&[PTRACE])]),
    both(
        "ptrace-seize-runner",
        "ptrace seize of the runner",
        |_| on_runner(seize),
        &[event(&[PTRACE, OF_RUNNER])],
    ),
    both("ptrace-traceme", "a process lets its parent trace it", |_| trace_me(), &[event(&[PTRACE])]),
    both("vm-readv", "process_vm_readv", |_| on_child(|pid| vector(pid, false)), &[event(&[VM_READ])]),
    both(
        "vm-readv-runner",
        "process_vm_readv of the runner",
        |_| on_runner(|pid| vector(pid, false)),
        &[event(&[VM_READ, OF_RUNNER])],
    ),
    both("vm-writev", "process_vm_writev", |_| on_child(|pid| vector(pid, true)), &[event(&[VM_WRITE])]),
    both(
        "vm-writev-runner",
        "process_vm_writev to the runner",
        |_| on_runner(|pid| vector(pid, true)),
        &[event(&[VM_WRITE, OF_RUNNER])],
    ),
    both("getfd", "pidfd_getfd", |_| on_child(getfd), &[event(&[GETFD])]),
    both("getfd-runner", "pidfd_getfd from the runner", |_| on_runner(getfd), &[event(&[GETFD, OF_RUNNER])]),
    of_proc("proc-mem", "/proc/PID/mem", |_| on_child(|pid| look(pid, "mem")), &[event(&[MEM])]),
    memory(
        "proc-mem-runner",
        "/proc/PID/mem of the runner",
        |_| on_runner(|pid| look(pid, "mem")),
        Seen::Told(&[event(&[MEM, OF_RUNNER])]),
        MARKED_MEM,
    ),
    of_proc(
        "proc-environ",
        "/proc/PID/environ",
        |_| on_child(|pid| look(pid, "environ")),
        &[event(&[INSPECT])],
    ),
    memory(
        "proc-environ-runner",
        "/proc/PID/environ of the runner",
        |_| on_runner(|pid| look(pid, "environ")),
        LOOKED,
        LOOKED,
    ),
    of_proc("proc-maps", "/proc/PID/maps", |_| on_child(|pid| look(pid, "maps")), &[event(&[INSPECT])]),
    memory(
        "proc-maps-runner",
        "/proc/PID/maps of the runner",
        |_| on_runner(|pid| look(pid, "maps")),
        LOOKED,
        LOOKED,
    ),
    of_proc("proc-fds", "/proc/PID/fd", |_| on_child(list), &[event(&[INSPECT])]),
    memory("proc-fds-runner", "/proc/PID/fd of the runner", |_| on_runner(list), LOOKED, LOOKED),
    memory(
        "proc-task-mem-runner",
        "/proc/PID/task/TID/mem of the runner",
        |_| on_runner(|pid| look(pid, &format!("task/{pid}/mem"))),
        Seen::Told(&[event(&[MEM, OF_RUNNER])]),
        Seen::Gap("Marks are on the runner's own directory in /proc, not on those of its threads."),
    ),
    memory(
        "core-dump",
        "a core dump of a process of the job",
        core_dump,
        Seen::Told(&[event(&[CORE])]),
        Seen::Told(&[event(&[CORE])]),
    ),
];

const LOOKED: Seen = Seen::Told(&[event(&[INSPECT, OF_RUNNER])]);
const MARKED_MEM: Seen = Seen::Told(&[event(&[MEM, OF_RUNNER])]);

fn on_child(act: impl FnOnce(i32) -> Result<()>) -> Result<()> {
    let child = call::waiting(|| Ok(()))?;
    let result = act(child.0);
    child.kill()?;
    result
}

fn on_runner(act: impl FnOnce(i32) -> Result<()>) -> Result<()> {
    act(runner()?)
}

/// The runner above this process.
fn runner() -> Result<i32> {
    let mut pid = std::process::id();
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let value = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default()
        };
        if value("Name:") == "Runner.Worker" {
            return Ok(i32::try_from(pid)?);
        }
        pid = value("PPid:").parse().ok().filter(|parent| *parent > 1).context("no runner is above")?;
    }
}

/// `PTRACE_ATTACH`, `_SEIZE`, `_DETACH` take no pointers.
fn trace(request: libc::c_uint, pid: i32) -> Result<()> {
    call!(SYS_ptrace, i64::from(request), i64::from(pid), 0_i64, 0_i64)?;
    Ok(())
}

fn attach(pid: i32) -> Result<()> {
    trace(libc::PTRACE_ATTACH, pid)?;
    Child(pid).wait()?;
    trace(libc::PTRACE_DETACH, pid)
}

fn seize(pid: i32) -> Result<()> {
    trace(libc::PTRACE_SEIZE, pid)?;
    trace(libc::PTRACE_INTERRUPT, pid)?;
    Child(pid).wait()?;
    trace(libc::PTRACE_DETACH, pid)
}

fn trace_me() -> Result<()> {
    call::fork(|| trace(libc::PTRACE_TRACEME, 0))?.succeed()
}

/// One byte at an address where nothing is: the kernel asks whether this is allowed first.
fn vector(pid: i32, write: bool) -> Result<()> {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: 16 as *mut libc::c_void, iov_len: 1 };
    let result = if write {
        call!(SYS_process_vm_writev, pid, &raw const local, 1, &raw const remote, 1, 0)
    } else {
        call!(SYS_process_vm_readv, pid, &raw const local, 1, &raw const remote, 1, 0)
    };
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        other => bail!("the kernel said {other:?}"),
    }
}

fn getfd(pid: i32) -> Result<()> {
    let process = own(call!(SYS_pidfd_open, pid, 0)?)?;
    own(call!(SYS_pidfd_getfd, process.as_raw_fd(), 0, 0)?).map(drop)
}

fn look(pid: i32, file: &str) -> Result<()> {
    let file = fs::File::open(format!("/proc/{pid}/{file}"))?;
    let mut buffer = [0_u8; 16];
    // What is at the beginning of memory cannot be read, and need not.
    let _unmapped = std::io::Read::read(&mut &file, &mut buffer);
    ensure!(file.metadata()?.nlink() > 0, "the file is gone");
    Ok(())
}

fn list(pid: i32) -> Result<()> {
    let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let first = descriptors.next().context("the process has no descriptors")??;
    fs::read_link(first.path()).map(drop).context("cannot read where a descriptor leads")
}

fn core_dump(place: &Place) -> Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    if !pattern.starts_with('|') {
        std::env::set_current_dir(place.new_directory("core")?)?;
    }
    let child = call::fork(|| {
        let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
        // SAFETY: the limit outlives the call.
        checked(i64::from(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }))?;
        // SAFETY: ends this process.
        unsafe { libc::abort() }
    })?;
    let status = child.wait()?;
    if !libc::WCOREDUMP(status) {
        return Err(call::absent("the kernel writes no core dump here"));
    }
    Ok(())
}
