//! Changes of secret files that leave no open file behind: rights, length, names.
//!
//! A second fanotify group, which tells files by their handles (`FAN_REPORT_FID`, fanotify(7)): such changes have no open
//! file that the first group could tell. A file system without handles keeps its changes to itself.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
};

use super::{FileId, wire::RawEvent};

/// Largest handle (`MAX_HANDLE_SZ`, include/linux/exportfs.h).
const HANDLE_BYTES: u32 = 128;
/// `AT_HANDLE_FID`: a handle that need not be good for opening. Since Linux 6.5.
const HANDLE_FOR_NOTICE: i32 = 0x200;

/// A file as fanotify names it: file system, kind of handle, handle.
pub(super) type Handle = Vec<u8>;

/// The group and what is marked in it.
#[derive(Debug)]
pub(super) struct Changes {
    fanotify: Fanotify,
    files: HashMap<Handle, FileId>,
    directories: HashMap<Handle, PathBuf>,
}

/// What an event is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A marked file.
    File(FileId),
    /// A name in a marked directory.
    Name(PathBuf),
}

impl Changes {
    /// Fails where fanotify has no handles or process descriptors (before Linux 5.15).
    pub(super) fn new() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS
            | InitFlags::FAN_REPORT_PIDFD
            | InitFlags::from_bits_retain(libc::FAN_REPORT_FID | libc::FAN_REPORT_DFID_NAME);
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
        Ok(Self { fanotify, files: HashMap::new(), directories: HashMap::new() })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fanotify.as_fd()
    }

    /// Tells changes of this file.
    pub(super) fn add_file(&mut self, path: &Path, file: FileId) -> io::Result<()> {
        let mask = MaskFlags::FAN_ATTRIB | MaskFlags::FAN_MODIFY | MaskFlags::FAN_MOVE_SELF;
        self.files.insert(self.mark(path, mask)?, file);
        Ok(())
    }

    /// Tells names that vanish from this directory or come into it.
    pub(super) fn add_directory(&mut self, path: &Path) -> io::Result<()> {
        let handle = self.mark(path, MaskFlags::FAN_DELETE | MaskFlags::FAN_MOVED_TO)?;
        self.directories.insert(handle, path.to_owned());
        Ok(())
    }

    /// Forgets a file that is no longer watched.
    pub(super) fn forget(&mut self, file: FileId) {
        self.files.retain(|_, known| *known != file);
    }

    fn mark(&self, path: &Path, mask: MaskFlags) -> io::Result<Handle> {
        let handle = handle_of(path)?;
        self.fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(path))?;
        Ok(handle)
    }

    /// What an event is about, if it is about something that is marked.
    pub(super) fn subject(&self, event: &RawEvent) -> Option<Subject> {
        if let Some(file) = event.handle.as_ref().and_then(|handle| self.files.get(handle)) {
            return Some(Subject::File(*file));
        }
        let (directory, name) = event.name.as_ref()?;
        let path = self.directories.get(directory)?;
        Some(Subject::Name(path.join(OsStr::from_bytes(name))))
    }
}

/// As `copy_fid_info_to_user` writes it (`fs/notify/fanotify/fanotify_user.c`).
fn handle_of(path: &Path) -> io::Result<Handle> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let system = nix::sys::statfs::statfs(path.as_c_str())?.filesystem_id();
    // SAFETY: both are eight bytes of integers.
    let mut handle = unsafe { std::mem::transmute::<nix::sys::statfs::fsid_t, [u8; 8]>(system) }.to_vec();
    handle.extend(read_handle(&path, 0).or_else(|_| read_handle(&path, HANDLE_FOR_NOTICE))?);
    Ok(handle)
}

/// Kind and bytes of the handle. Follows symbolic links, as marks do.
fn read_handle(path: &CString, flags: i32) -> io::Result<Vec<u8>> {
    // struct file_handle: length, kind, and the handle itself.
    let mut buffer = [0_u32; 2 + HANDLE_BYTES as usize / 4];
    buffer[0] = HANDLE_BYTES;
    let mut mount = 0_i32;
    // SAFETY: the path ends in a zero, the buffer has the room that its first number says, the mount is one integer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            buffer.as_mut_ptr(),
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW | flags,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = buffer[0] as usize;
    let bytes: Vec<u8> = buffer[1..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.get(..4 + length).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_a_file_are_one_handle() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, other] = ["one", "two", "other"].map(|name| directory.path().join(name));
        std::fs::write(&one, "").unwrap();
        std::fs::hard_link(&one, &two).unwrap();
        std::fs::write(&other, "").unwrap();
        let Ok(handle) = handle_of(&one) else { return };
        assert_eq!(handle_of(&two).unwrap(), handle);
        assert_ne!(handle_of(&other).unwrap(), handle);
        assert!(handle_of(&directory.path().join("none")).is_err());
    }
}
