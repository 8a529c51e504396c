//! What processes do so that an access is told of someone else, or of nobody.

use std::{
    ffi::CString,
    fs,
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    libc,
    sched::{CloneFlags, clone},
};

use crate::{
    call::{self, c, checked, own, read_secret},
    expect::{Event, Family, Match, Match::Ends, Match::Has, Match::True, Seen, Technique, secret},
    files::{OPENED, OPENED_THEN_READ},
    place::Place,
};

const fn process(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    events: &'static [Event],
) -> Technique {
    Technique {
        name,
        family: Family::Process,
        what,
        run,
        a: Seen::Told(events),
        b: Seen::Told(events),
        never: &[],
    }
}

const fn exec(fields: &'static [(&'static str, Match)]) -> Event {
    Event { body: "process_exec", fields }
}

const ACCESS: &[Event] = OPENED_THEN_READ;

pub(crate) const TECHNIQUES: &[Technique] = &[
    process(
        "exec-deleted",
        "program deleted before it runs",
        exec_deleted,
        &[exec(&[("deleted", True)]), ACCESS_TOLD],
    ),
    process(
        "exec-memfd",
        "program in anonymous memory (memfd, execveat)",
        exec_memfd,
        &[exec(&[("deleted", True)]), ACCESS_TOLD],
    ),
    process(
        "script",
        "script with an interpreter",
        script,
        &[exec(&[("filename", Ends(".script"))]), ACCESS_TOLD],
    ),
    process(
        "exec-from-thread",
        "program run by a thread that is not the first",
        exec_from_thread,
        &[exec(&[("filename", Ends("/bin/reader"))]), ACCESS_TOLD],
    ),
    process("leader-gone", "first thread ended, another goes on", leader_gone, ACCESS),
    process("killed", "read, then killed at once (SIGKILL)", killed, ACCESS),
    process("fork-storm", "read in the last of 500 processes", fork_storm, ACCESS),
    process("daemon", "read by a daemon with an empty environment", daemon, ACCESS),
    process("vfork", "read in a process that shares its parent's memory (vfork)", vfork, ACCESS),
    process(
        "clone-parent",
        "read in a process whose parent is its grandparent (CLONE_PARENT)",
        clone_parent,
        ACCESS,
    ),
    process("renamed-process", "read under another process name", renamed, ACCESS),
    process("other-cgroup", "read in another cgroup", other_cgroup, ACCESS),
    process("subreaper", "read by an orphan that another process adopted", subreaper, ACCESS),
    process(
        "loader-variables",
        "program run with LD_PRELOAD, BASH_ENV and NODE_OPTIONS",
        loader_variables,
        &[exec(&[
            ("loader_variables", Has("LD_PRELOAD")),
            ("loader_variables", Has("BASH_ENV")),
            ("loader_variables", Has("NODE_OPTIONS")),
        ])],
    ),
];

const ACCESS_TOLD: Event = secret(&[OPENED]);

fn read(place: &Place) -> Result<()> {
    read_secret(call::open(place.secret(), libc::O_RDONLY)?)
}

/// Waits a moment, so that what reads and ends leaves time for nothing else to happen.
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

fn own_reader(place: &Place) -> Result<OwnedFd> {
    let copy = place.aside("program");
    fs::copy(place.directory().join("bin/reader"), &copy)?;
    let file = call::open(&copy, libc::O_RDONLY)?;
    fs::remove_file(copy)?;
    Ok(file)
}

fn exec_descriptor(program: &OwnedFd, place: &Place) -> Result<()> {
    let words = ["reader".into(), "file".into(), place.secret().display().to_string()];
    let words: Vec<CString> = words.iter().map(|word: &String| c(word)).collect::<Result<_>>()?;
    let mut pointers: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let (empty, none) = (c"", [std::ptr::null::<libc::c_char>()]);
    call::fork(|| {
        call!(
            SYS_execveat,
            program.as_raw_fd(),
            empty.as_ptr(),
            pointers.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH
        )?;
        Ok(())
    })?
    .succeed()
}

fn exec_deleted(place: &Place) -> Result<()> {
    exec_descriptor(&own_reader(place)?, place)
}

fn exec_memfd(place: &Place) -> Result<()> {
    let memory = own(call!(SYS_memfd_create, c"reader".as_ptr(), 0)?)?;
    let mut file = fs::File::from(memory);
    file.write_all(&fs::read(place.directory().join("bin/reader"))?)?;
    exec_descriptor(&OwnedFd::from(file), place)
}

fn script(place: &Place) -> Result<()> {
    let path = place.aside("script");
    fs::write(&path, format!("#!/bin/sh\ncat {} > /dev/null\n", place.secret().display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    let status = Command::new(path).status()?;
    ensure!(status.success(), "the script ended with {status}");
    Ok(())
}

fn exec_from_thread(place: &Place) -> Result<()> {
    let program = c(place.directory().join("bin/reader"))?;
    let words = [c("reader")?, c("file")?, c(place.secret())?];
    call::fork(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pointers = [words[0].as_ptr(), words[1].as_ptr(), words[2].as_ptr(), std::ptr::null()];
                let none = [std::ptr::null::<libc::c_char>()];
                call!(SYS_execve, program.as_ptr(), pointers.as_ptr(), none.as_ptr())
            });
        });
        anyhow::bail!("the program was not run")
    })?
    .succeed()
}

fn leader_gone(place: &Place) -> Result<()> {
    let path = place.secret();
    call::fork(|| {
        let thread = std::thread::spawn(move || {
            pause();
            let read = call::open(path, libc::O_RDONLY).and_then(read_secret);
            // SAFETY: ends the whole process.
            unsafe { libc::_exit(i32::from(read.is_err())) }
        });
        std::mem::forget(thread);
        // Ends this thread alone.
        call!(SYS_exit, 0)?;
        Ok(())
    })?
    .succeed()
}

fn killed(place: &Place) -> Result<()> {
    call::fork(|| {
        read(place)?;
        // SAFETY: a call without pointers, to this process itself.
        checked(i64::from(unsafe { libc::kill(libc::getpid(), libc::SIGKILL) }))?;
        Ok(())
    })?
    .wait()
    .map(drop)
}

fn fork_storm(place: &Place) -> Result<()> {
    let mut children = Vec::new();
    for index in 0..500 {
        children.push(call::fork(|| if index == 499 { read(place) } else { Ok(()) })?);
    }
    children.iter().try_for_each(call::Child::succeed)
}

fn daemon(place: &Place) -> Result<()> {
    let mut reader = place.reader();
    reader.env_clear().arg("file").arg(place.secret());
    call::fork(|| {
        call!(SYS_setsid)?;
        call::fork(|| {
            pause();
            let status = reader.status()?;
            ensure!(status.success(), "the reader ended with {status}");
            Ok(())
        })?;
        Ok(())
    })?
    .succeed()?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

/// In a process made with these flags.
fn in_clone(flags: CloneFlags, place: &Place) -> Result<()> {
    let mut stack = vec![0_u8; 256 * 1024];
    let work = Box::new(|| isize::from(read(place).is_err()));
    // SAFETY: the stack outlives the child, which ends before this function does.
    let child = unsafe { clone(work, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    if flags.contains(CloneFlags::CLONE_PARENT) {
        // Somebody else's child now.
        std::thread::sleep(Duration::from_millis(200));
        return Ok(());
    }
    call::Child(child.as_raw()).succeed()
}

fn vfork(place: &Place) -> Result<()> {
    in_clone(CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK, place)
}

fn clone_parent(place: &Place) -> Result<()> {
    call::fork(|| in_clone(CloneFlags::CLONE_PARENT, place))?.succeed()?;
    pause();
    Ok(())
}

fn renamed(place: &Place) -> Result<()> {
    call::fork(|| {
        // SAFETY: the name outlives the call.
        checked(i64::from(unsafe { libc::prctl(libc::PR_SET_NAME, c"buildtrail-agent".as_ptr()) }))?;
        read(place)
    })?
    .succeed()
}

fn other_cgroup(place: &Place) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let root =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let Some(root) = root else { return Err(call::absent("no cgroup2 is mounted")) };
    let group = std::path::Path::new(root).join(format!("evasion-{}", std::process::id()));
    fs::create_dir(&group)?;
    let result = call::fork(|| {
        fs::write(group.join("cgroup.procs"), "0")?;
        read(place)
    })?
    .succeed();
    fs::remove_dir(&group)?;
    result
}

fn subreaper(place: &Place) -> Result<()> {
    // SAFETY: a call without pointers.
    checked(i64::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }))?;
    call::fork(|| {
        call::fork(|| {
            pause();
            read(place)
        })?;
        Ok(())
    })?
    .succeed()?;
    // The orphan is a child of this process now.
    call::Child(-1).succeed()
}

fn loader_variables(place: &Place) -> Result<()> {
    let status = place
        .reader()
        .arg("nothing")
        .envs([("LD_PRELOAD", "/nonexistent.so"), ("BASH_ENV", "/dev/null"), ("NODE_OPTIONS", "--title=x")])
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "the program ended with {status}");
    Ok(())
}
