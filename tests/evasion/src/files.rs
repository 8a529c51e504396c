//! Ways to open and read a secret file.

use std::{
    arch::asm,
    fs::File,
    io::Read as _,
    mem::ManuallyDrop,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
};

use anyhow::{Result, ensure};
use nix::libc;

use crate::{
    call::{self, absent, c, checked, own, read_secret},
    expect::{
        Event, Family, Match,
        Match::{Ends, Has, Is},
        Seen, Technique, secret,
    },
    place::Place,
    ring::{self, Request, Ring},
};

pub(crate) const OPENED: (&str, Match) = ("operations", Has("OPERATION_OPEN"));
pub(crate) const READ: (&str, Match) = ("operations", Has("OPERATION_READ"));
pub(crate) const WRITTEN: (&str, Match) = ("operations", Has("OPERATION_WRITE"));
const RECEIVED: (&str, Match) = ("operations", Has("OPERATION_RECEIVE"));
const BY_READER: (&str, Match) = ("/process/executable", Ends("/bin/reader"));

/// Told as one event, or, where the two are far enough apart, as two.
pub(crate) const OPENED_THEN_READ: &[Event] = &[secret(&[OPENED]), secret(&[READ])];
/// What is seen of an ordinary open and read where security functions are not.
pub(crate) const OF_MARKS: Seen = Seen::Told(OPENED_THEN_READ);
pub(crate) const BY_CALL: Seen =
    Seen::Told(&[secret(&[OPENED, ("way", Is("FILE_WAY_OPEN"))]), secret(&[READ])]);
const BY_RING: Seen = Seen::Told(&[secret(&[OPENED, ("way", Is("FILE_WAY_IO_URING"))]), secret(&[READ])]);
const BY_HANDLE: Seen = Seen::Told(&[secret(&[OPENED, ("way", Is("FILE_WAY_HANDLE"))]), secret(&[READ])]);
/// The file was opened; whether it was read is not told on every kernel, or comes too early for a mark.
pub(crate) const ONLY_OPENED: Seen = Seen::Told(&[secret(&[OPENED])]);
const READ_BY_READER: Seen = Seen::Told(&[secret(&[READ, BY_READER])]);

/// A technique of which tier B sees the same without the way.
pub(crate) const fn way(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    a: Seen,
) -> Technique {
    file(name, what, run, a, OF_MARKS)
}

pub(crate) const fn file(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    a: Seen,
    b: Seen,
) -> Technique {
    Technique { name, family: Family::Files, what, run, a, b, never: &[] }
}

pub(crate) const TECHNIQUES: &[Technique] = &[
    way("open", "open", |place| read_secret(call::open(place.secret(), libc::O_RDONLY)?), BY_CALL),
    way("openat", "openat", openat, BY_CALL),
    way("openat2", "openat2", openat2, BY_CALL),
    file(
        "creat",
        "creat, which empties the file",
        creat,
        Seen::Told(&[secret(&[OPENED])]),
        Seen::Told(&[secret(&[OPENED])]),
    ),
    way("open-int80", "open by the 32-bit system call (int 0x80)", open_int80, BY_CALL),
    way("io-uring", "open and read by io_uring", |place| by_ring(place, 0, false), BY_RING),
    way(
        "io-uring-sqpoll",
        "io_uring with a thread of the kernel",
        |place| by_ring(place, ring::SQPOLL, false),
        BY_RING,
    ),
    way("io-uring-direct", "io_uring with a descriptor of its own", |place| by_ring(place, 0, true), BY_RING),
    way("open-by-handle", "open_by_handle_at", open_by_handle, BY_HANDLE),
    way("o-path", "O_PATH, then opened through /proc/self/fd", o_path, BY_CALL),
    way("proc-fd", "through /proc/PID/fd of another process", proc_fd, BY_CALL),
    way("proc-root", "through /proc/PID/root of another process", proc_root, BY_CALL),
    file(
        "mmap",
        "mapped into memory, never read",
        mmap,
        Seen::Told(&[secret(&[OPENED]), secret(&[("operations", Has("OPERATION_MAP"))])]),
        Seen::Told(&[secret(&[OPENED])]),
    ),
    way("sendfile", "copied by sendfile", sendfile, BY_CALL),
    // Linux 6.1 does not tell fanotify that splice reads.
    file("splice", "moved into a pipe by splice", splice, ONLY_OPENED, ONLY_OPENED),
    file(
        "inherited-fd",
        "descriptor inherited by the program that reads",
        inherited,
        READ_BY_READER,
        READ_BY_READER,
    ),
    file(
        "scm-rights",
        "descriptor received over a unix socket (SCM_RIGHTS)",
        scm_rights,
        Seen::Told(&[
            secret(&[RECEIVED, BY_READER, ("way", Is("FILE_WAY_SOCKET"))]),
            secret(&[READ, BY_READER]),
        ]),
        READ_BY_READER,
    ),
    file(
        "pidfd-getfd",
        "descriptor taken from another process (pidfd_getfd)",
        taken,
        Seen::Told(&[
            TAKEN,
            secret(&[RECEIVED, BY_READER, ("way", Is("FILE_WAY_PROCESS_DESCRIPTOR"))]),
            secret(&[READ, BY_READER]),
        ]),
        Seen::Told(&[TAKEN, secret(&[READ, BY_READER])]),
    ),
    file(
        "open-denied",
        "open that the file's permissions refuse",
        denied,
        Seen::Gap("The kernel refuses by the file's mode before any hook runs."),
        Seen::Gap("The kernel refuses by the file's mode before any hook runs."),
    ),
];

const TAKEN: Event =
    Event { body: "memory_access", fields: &[("method", Is("MEMORY_METHOD_PIDFD_GETFD")), BY_READER] };

fn openat(place: &Place) -> Result<()> {
    let path = c(place.secret())?;
    read_secret(own(call!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_RDONLY)?)?)
}

fn openat2(place: &Place) -> Result<()> {
    let path = c(place.secret())?;
    let how = [0_u64; 3];
    read_secret(own(call!(SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how))?)?)
}

fn creat(place: &Place) -> Result<()> {
    let path = c(place.secret())?;
    own(call!(SYS_creat, path.as_ptr(), 0o600)?).map(drop)
}

fn open_int80(place: &Place) -> Result<()> {
    let path = c(place.secret())?;
    let path = path.as_bytes_with_nul();
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: a new mapping, larger than the path.
    let low = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    checked(if low == libc::MAP_FAILED { -1 } else { 0 })?;
    let result: i64;
    // SAFETY: the copy fits the mapping; call 5 is open(path, flags), which a kernel without 32-bit calls does not get to.
    unsafe {
        ptr::copy_nonoverlapping(path.as_ptr(), low.cast(), path.len());
        asm!(
            "push rbx", "mov rbx, {path}", "int 0x80", "pop rbx",
            path = in(reg) low,
            inlateout("rax") 5_i64 => result,
            in("rcx") i64::from(libc::O_RDONLY), in("rdx") 0_i64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    #[expect(clippy::cast_possible_truncation, reason = "32-bit calls return 32 bits")]
    let result = result as i32;
    if result < 0 {
        return Err(std::io::Error::from_raw_os_error(-result).into());
    }
    read_secret(own(i64::from(result))?)
}

fn by_ring(place: &Place, flags: u32, direct: bool) -> Result<()> {
    let mut ring = Ring::new(flags)?;
    if direct {
        ring.register_files(1)?;
    }
    let path = c(place.secret())?;
    let open = Request {
        operation: ring::OPENAT,
        descriptor: libc::AT_FDCWD,
        address: path.as_ptr() as u64,
        // One more than the place among the ring's own descriptors.
        file_index: u32::from(direct),
        ..Request::default()
    };
    let opened = ring.request(open).map_err(|error| absent(format!("io_uring cannot open: {error}")))?;
    let mut text = [0_u8; 64];
    let read = Request {
        operation: ring::READ,
        flags: if direct { ring::FIXED_FILE } else { 0 },
        descriptor: if direct { 0 } else { opened },
        address: text.as_mut_ptr() as u64,
        length: 64,
        ..Request::default()
    };
    ring.request(read)?;
    ensure!(text.starts_with(b"FAKE"), "this is no fake secret");
    Ok(())
}

fn open_by_handle(place: &Place) -> Result<()> {
    // struct file_handle: bytes, type, and room for the handle.
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let (path, mut mount) = (c(place.secret())?, 0_i32);
    let handles = "the file system has no handles";
    call!(SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle.as_mut_ptr(), &raw mut mount, 0)
        .map_err(|error| absent(format!("{handles}: {error}")))?;
    let directory = call::open(place.secrets(), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let opened = call!(SYS_open_by_handle_at, directory.as_raw_fd(), handle.as_mut_ptr(), libc::O_RDONLY);
    read_secret(own(opened.map_err(|error| absent(format!("{handles}: {error}")))?)?)
}

fn o_path(place: &Place) -> Result<()> {
    let name = call::open(place.secret(), libc::O_PATH)?;
    read_secret(call::open(format!("/proc/self/fd/{}", name.as_raw_fd()), libc::O_RDONLY)?)
}

fn proc_fd(place: &Place) -> Result<()> {
    let name = ManuallyDrop::new(call::open(place.secret(), libc::O_PATH)?);
    let child = call::waiting(|| Ok(()))?;
    let path = format!("/proc/{}/fd/{}", child.0, name.as_raw_fd());
    let result = call::open(path, libc::O_RDONLY).and_then(read_secret);
    child.kill()?;
    result
}

fn proc_root(place: &Place) -> Result<()> {
    let child = call::waiting(|| Ok(()))?;
    let path = format!("/proc/{}/root{}", child.0, place.secret().display());
    let result = call::open(path, libc::O_RDONLY).and_then(read_secret);
    child.kill()?;
    result
}

fn mmap(place: &Place) -> Result<()> {
    let file = call::open(place.secret(), libc::O_RDONLY)?;
    // SAFETY: a new mapping of the open file, of one page.
    let bytes =
        unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    checked(if bytes == libc::MAP_FAILED { -1 } else { 0 })?;
    // SAFETY: the file has at least four bytes, which only this process could change.
    ensure!(unsafe { bytes.cast::<[u8; 4]>().read() } == *b"FAKE", "this is no fake secret");
    Ok(())
}

fn sendfile(place: &Place) -> Result<()> {
    let file = call::open(place.secret(), libc::O_RDONLY)?;
    let (mut ours, theirs) = UnixStream::pair()?;
    call!(SYS_sendfile, theirs.as_raw_fd(), file.as_raw_fd(), 0, 64)?;
    drop(theirs);
    let mut text = Vec::new();
    ours.read_to_end(&mut text)?;
    ensure!(text.starts_with(b"FAKE"), "this is no fake secret");
    Ok(())
}

fn splice(place: &Place) -> Result<()> {
    let file = call::open(place.secret(), libc::O_RDONLY)?;
    let (ours, theirs) = std::io::pipe()?;
    call!(SYS_splice, file.as_raw_fd(), 0, theirs.as_raw_fd(), 0, 64, 0)?;
    drop(theirs);
    read_secret(OwnedFd::from(ours))
}

fn inherited(place: &Place) -> Result<()> {
    let file = call::open(place.secret(), libc::O_RDONLY)?;
    call::inheritable(&file)?;
    let status = place.reader().args(["inherited", &file.as_raw_fd().to_string()]).status()?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}

fn scm_rights(place: &Place) -> Result<()> {
    let file = call::open(place.secret(), libc::O_RDONLY)?;
    let (ours, theirs) = UnixStream::pair()?;
    call::inheritable(&theirs)?;
    let mut reader = place.reader().args(["received", &theirs.as_raw_fd().to_string()]).spawn()?;
    call::send(&ours, &file)?;
    let status = reader.wait()?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}

fn taken(place: &Place) -> Result<()> {
    let file = File::open(place.secret())?;
    let holder = call::waiting(|| Ok(()))?;
    let descriptor = file.as_raw_fd().to_string();
    let status = place.reader().args(["taken", &holder.0.to_string(), &descriptor]).status()?;
    holder.kill()?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}

fn denied(place: &Place) -> Result<()> {
    let path = place.secret();
    std::os::unix::fs::chown(&path, Some(0), Some(0))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let child = call::fork(|| {
        // SAFETY: a call without pointers, in a process of its own.
        checked(i64::from(unsafe { libc::setuid(65534) }))?;
        ensure!(call::open(&path, libc::O_RDONLY).is_err(), "the open was not refused");
        Ok(())
    })?;
    child.succeed()
}
