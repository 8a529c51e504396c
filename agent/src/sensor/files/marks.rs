//! Which inodes are marked, and what appears later.
//!
//! A file that exists is marked itself. Its directory is marked for opens of its children, so that a file that appears
//! later is seen by name until it is marked. Directories that do not exist yet are waited for at their nearest ancestor
//! that does.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CString, OsStr},
    fs::{self, Metadata},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::SystemTime,
};

use nix::sys::{
    fanotify::{Fanotify, MarkFlags, MaskFlags},
    inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tracing::{debug, warn};

use super::{
    FileId, KernelWatch, Relocated,
    changes::{Changes, Subject},
    touch,
    wire::RawEvent,
};
use crate::{
    catalog::{
        Entry,
        files::{Anywhere, FileName, Target},
    },
    sensor::records::FileTouch,
};

/// Files that one pattern may add in one directory.
const MAX_MATCHES: usize = 1024;

/// Files that a job's variables may add.
const MAX_RELOCATED: usize = 64;

/// What an open secret is.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) entry: Rc<Entry>,
    /// On the host, unless that is not known.
    pub(super) path: Option<Vec<u8>>,
    /// Only its name, or what a job says, tells so.
    pub(super) in_jobs_only: bool,
    /// Only its name tells so.
    pub(super) by_name: bool,
}

/// A marked file. The time of its creation, or its generation, tells it from a later one with the same inode number.
#[derive(Debug)]
struct Watched {
    entry: Rc<Entry>,
    path: PathBuf,
    created: Option<SystemTime>,
    generation: Option<u32>,
    /// It has no name any more that is known here.
    gone: bool,
    /// The job whose variable names it; `None`: the catalogue has it.
    job: Option<String>,
}

impl Watched {
    fn identified(&self) -> Identified {
        Identified {
            entry: Rc::clone(&self.entry),
            path: Some(self.path.as_os_str().as_bytes().to_vec()),
            in_jobs_only: self.job.is_some(),
            by_name: false,
        }
    }
}

/// Targets in one directory.
#[derive(Debug)]
struct Group {
    directory: PathBuf,
    targets: Vec<(FileName, Rc<Entry>)>,
}

#[derive(Debug)]
pub(super) struct Marks {
    groups: Vec<Group>,
    files: HashMap<FileId, Watched>,
    /// Real paths of marked directories.
    directories: HashMap<PathBuf, usize>,
    directory_ids: HashMap<FileId, PathBuf>,
    anywhere: Vec<Anywhere>,
    kernel: Option<KernelWatch>,
    changes: Option<Changes>,
    inotify: Inotify,
    waiting: HashMap<WatchDescriptor, HashSet<usize>>,
}

impl Marks {
    pub(super) fn new(
        targets: Vec<Target>,
        anywhere: Vec<Anywhere>,
        mut kernel: Option<KernelWatch>,
        changes: Option<Changes>,
    ) -> io::Result<Self> {
        for name in anywhere.iter().map(Anywhere::name).collect::<HashSet<_>>() {
            if let Some(kernel) = &mut kernel {
                kernel.add_name(name);
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut by_directory: HashMap<PathBuf, usize> = HashMap::new();
        for target in targets {
            let index = *by_directory.entry(target.directory.clone()).or_insert_with(|| {
                groups.push(Group { directory: target.directory.clone(), targets: Vec::new() });
                groups.len() - 1
            });
            groups[index].targets.push((target.name, target.entry));
        }
        Ok(Self {
            groups,
            files: HashMap::new(),
            directories: HashMap::new(),
            directory_ids: HashMap::new(),
            anywhere,
            kernel,
            changes,
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            waiting: HashMap::new(),
        })
    }

    pub(super) fn changes_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    pub(super) fn watched(&self) -> usize {
        self.files.len()
    }

    pub(super) fn scan_all(&mut self, fanotify: &Fanotify) {
        for index in 0..self.groups.len() {
            self.scan(fanotify, index);
        }
    }

    pub(super) fn follow_changes(&mut self, fanotify: &Fanotify) {
        let mut changed = HashSet::new();
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changed.extend(0..self.groups.len());
                } else if let Some(groups) = self.waiting.get(&event.wd) {
                    changed.extend(groups);
                }
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    self.waiting.remove(&event.wd);
                }
            }
        }
        for index in changed {
            self.scan(fanotify, index);
        }
    }

    /// Which secret a reported file is.
    pub(super) fn entry_of(
        &mut self,
        fanotify: &Fanotify,
        metadata: &Metadata,
        path: Option<&Path>,
    ) -> Option<Identified> {
        if let Some(watched) = self.files.get(&FileId::of(metadata))
            && watched.created == metadata.created().ok()
        {
            let identified = watched.identified();
            // A path that is too long to be told is the one that it was marked by.
            let told = path.map(|path| path.as_os_str().as_bytes().to_vec());
            return Some(Identified { path: told.or(identified.path), ..identified });
        }
        // A child of a marked directory that is not marked itself: new, or no secret.
        let path = path?;
        let entry = self.target_at(path)?;
        self.mark_file(fanotify, path, &entry, None);
        let path = Some(path.as_os_str().as_bytes().to_vec());
        Some(Identified { entry, path, in_jobs_only: false, by_name: false })
    }

    /// What the catalogue has at a path in a marked directory.
    fn target_at(&self, path: &Path) -> Option<Rc<Entry>> {
        let group = &self.groups[*self.directories.get(path.parent()?)?];
        let name = path.file_name()?;
        group.targets.iter().find(|(target, _)| target.matches(name)).map(|(_, entry)| Rc::clone(entry))
    }

    /// Becomes readable when a secret was changed.
    pub(super) fn changed_fd(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().map(Changes::descriptor)
    }

    /// Which file changed, and which secret that is.
    pub(super) fn changed(&mut self, event: &RawEvent) -> Option<(FileId, Identified)> {
        match self.changes.as_ref()?.subject(event)? {
            Subject::File(file) => Some((file, self.files.get(&file)?.identified())),
            Subject::Name(path) => {
                self.target_at(&path)?;
                let now = fs::symlink_metadata(&path).ok().as_ref().map(FileId::of);
                let (file, watched) = self
                    .files
                    .iter_mut()
                    .find(|(file, watched)| !watched.gone && watched.path == path && Some(**file) != now)?;
                watched.gone = true;
                Some((*file, watched.identified()))
            }
        }
    }

    /// Watches a file that a job's variable names, while that job lasts. Files beyond [`MAX_RELOCATED`] are left out.
    pub(super) fn add_relocated(&mut self, fanotify: &Fanotify, relocated: &Relocated) {
        let of_job = |watched: &&Watched| watched.job.as_ref() == Some(&relocated.job);
        let Ok(metadata) = fs::metadata(&relocated.path) else { return };
        let known = self.files.get(&FileId::of(&metadata));
        if known.is_some_and(|watched| watched.created == metadata.created().ok()) {
            return;
        }
        if self.files.values().filter(of_job).count() < MAX_RELOCATED {
            self.mark_file(fanotify, &relocated.path, &relocated.entry, Some(relocated.job.clone()));
        } else {
            warn!(job = relocated.job, "a job's variables name too many files; not all are watched");
        }
    }

    /// The job has ended: what only its variables named is watched no more.
    pub(super) fn forget_job(&mut self, fanotify: &Fanotify, job: &str) {
        let forgotten: Vec<(FileId, Watched)> =
            self.files.extract_if(|_, watched| watched.job.as_deref() == Some(job)).collect();
        for (file, watched) in forgotten {
            let all =
                MaskFlags::FAN_OPEN | MaskFlags::FAN_ACCESS | MaskFlags::FAN_MODIFY | MaskFlags::FAN_CLOSE;
            let path = Some(watched.path.as_path());
            if let Err(error) = fanotify.mark(MarkFlags::FAN_MARK_REMOVE, all, nix::fcntl::AT_FDCWD, path) {
                debug!(%error, "a file is watched on, because it is not at its place any more");
            }
            if let Some(changes) = &mut self.changes {
                changes.forget(file);
            }
            if let Some(kernel) = &mut self.kernel {
                kernel.remove_file(file);
            }
        }
    }

    /// Which secret a file is that the eBPF programs reported.
    pub(super) fn entry_of_touch(
        &mut self,
        fanotify: &Fanotify,
        file: FileId,
        touched: &FileTouch,
    ) -> Option<Identified> {
        if let Some(watched) = self.files.get(&file)
            && watched.generation.is_none_or(|generation| generation == touched.generation)
        {
            return Some(watched.identified());
        }
        let name = crate::catalog::base_name(&touched.path);
        if touch::is_watched_place(touched) {
            let directory = FileId { device: file.device, inode: touched.directory };
            if let Some(path) = self.directory_ids.get(&directory).cloned()
                && let Some(group) = self.directories.get(&path)
                && let Some((_, entry)) = self.groups[*group]
                    .targets
                    .iter()
                    .find(|(target, _)| target.matches(OsStr::from_bytes(name)))
            {
                let (entry, path) = (Rc::clone(entry), path.join(OsStr::from_bytes(name)));
                self.mark_file(fanotify, &path, &entry, None);
                let path = Some(path.as_os_str().as_bytes().to_vec());
                return Some(Identified { entry, path, in_jobs_only: false, by_name: false });
            }
        }
        let found = self.anywhere.iter().find(|anywhere| anywhere.matches(&touched.path))?;
        Some(Identified { entry: Rc::clone(&found.entry), path: None, in_jobs_only: true, by_name: true })
    }

    /// Marks what exists of a group and waits for the rest.
    fn scan(&mut self, fanotify: &Fanotify, index: usize) {
        let directory = self.groups[index].directory.clone();
        let Ok(real) = fs::canonicalize(&directory) else {
            self.wait_at_ancestor(&directory, index);
            return;
        };
        // Wait first: what appears between is then scanned twice, never missed.
        self.wait_at(&real, index);
        self.mark_directory(fanotify, &real, index);
        for (path, entry) in self.existing(index, &real) {
            self.mark_file(fanotify, &path, &entry, None);
        }
    }

    fn existing(&self, index: usize, directory: &Path) -> Vec<(PathBuf, Rc<Entry>)> {
        let mut found = Vec::new();
        for (name, entry) in &self.groups[index].targets {
            match name {
                FileName::Exact(exact) => found.push((directory.join(exact), Rc::clone(entry))),
                FileName::Pattern(_) => found.extend(
                    fs::read_dir(directory)
                        .into_iter()
                        .flatten()
                        .filter_map(Result::ok)
                        .filter(|file| name.matches(&file.file_name()))
                        .take(MAX_MATCHES)
                        .map(|file| (file.path(), Rc::clone(entry))),
                ),
            }
        }
        found
    }

    fn mark_file(&mut self, fanotify: &Fanotify, path: &Path, entry: &Rc<Entry>, job: Option<String>) {
        let Ok(metadata) = fs::metadata(path) else { return };
        if !metadata.is_file() {
            return;
        }
        let mask = MaskFlags::FAN_OPEN | MaskFlags::FAN_ACCESS | MaskFlags::FAN_MODIFY | MaskFlags::FAN_CLOSE;
        match fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(path)) {
            Ok(()) => {
                let file = FileId::of(&metadata);
                if let Some(kernel) = &mut self.kernel {
                    kernel.add_file(file);
                }
                if let Some(changes) = &mut self.changes
                    && let Err(error) = changes.add_file(path, file)
                {
                    debug!(secret = entry.name, %error, "changes of a secret file cannot be watched");
                }
                let watched = Watched {
                    entry: Rc::clone(entry),
                    path: path.to_owned(),
                    created: metadata.created().ok(),
                    generation: generation_of(path),
                    gone: false,
                    job,
                };
                self.files.insert(file, watched);
            }
            Err(error) => warn!(secret = entry.name, %error, "a secret file cannot be watched"),
        }
    }

    fn mark_directory(&mut self, fanotify: &Fanotify, real: &Path, index: usize) {
        let mask = MaskFlags::FAN_OPEN | MaskFlags::FAN_EVENT_ON_CHILD;
        match fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(real)) {
            Ok(()) => {
                self.directories.insert(real.to_owned(), index);
                if let Some(changes) = &mut self.changes
                    && let Err(error) = changes.add_directory(real)
                {
                    debug!(directory = %real.display(), %error, "changes of secrets in a directory cannot be watched");
                }
                if let Ok(metadata) = fs::metadata(real) {
                    let directory = FileId::of(&metadata);
                    self.directory_ids.insert(directory, real.to_owned());
                    if let Some(kernel) = &mut self.kernel {
                        kernel.add_directory(directory);
                    }
                }
            }
            Err(error) => {
                debug!(directory = %real.display(), %error, "a directory of secrets cannot be watched");
            }
        }
    }

    fn wait_at(&mut self, directory: &Path, index: usize) {
        let mask = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(directory, mask) {
            Ok(descriptor) => {
                self.waiting.entry(descriptor).or_default().insert(index);
            }
            Err(error) => {
                debug!(directory = %directory.display(), %error, "cannot wait for secrets to appear");
            }
        }
    }

    fn wait_at_ancestor(&mut self, directory: &Path, index: usize) {
        let ancestor = directory.ancestors().skip(1).find_map(|ancestor| fs::canonicalize(ancestor).ok());
        if let Some(ancestor) = ancestor {
            self.wait_at(&ancestor, index);
        }
    }
}

/// `struct file_handle` with room for the largest handle (`MAX_HANDLE_SZ`, include/linux/exportfs.h).
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

/// `FILEID_INO32_GEN` (include/linux/exportfs.h): inode number and generation, 32 bits each.
const INODE_AND_GENERATION: i32 = 1;
/// The same of XFS with 64-bit inode numbers (`fs/xfs/xfs_export.h`).
const XFS_INODE_AND_GENERATION: i32 = 0x81;

/// `i_generation`, of file systems whose handles tell it. Does not open the file.
fn generation_of(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut handle = FileHandle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount = 0;
    // SAFETY: the path ends with a zero, and the kernel writes at most the 128 bytes that `bytes` announces.
    let result = unsafe {
        nix::libc::syscall(
            nix::libc::SYS_name_to_handle_at,
            nix::libc::AT_FDCWD,
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount,
            nix::libc::AT_SYMLINK_FOLLOW,
        )
    };
    let at = match (result, handle.kind, handle.bytes) {
        (0, INODE_AND_GENERATION, 8) => 4,
        (0, XFS_INODE_AND_GENERATION, 12) => 8,
        _ => return None,
    };
    Some(u32::from_ne_bytes(handle.handle.get(at..at + 4)?.try_into().ok()?))
}
