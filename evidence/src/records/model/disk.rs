//! A disk in memory that keeps apart what programs see and what would survive a power cut.
//!
//! A cut keeps an arbitrary part of what was not synced: writes whole, torn or not at all, whatever their order; names
//! made, replaced and deleted likewise. A refused sync of a file does the same and then calls the rest clean, as Linux
//! does.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    super::disk::{Disk, DiskFile, Lock, Open},
    Random,
};

/// What a broken record layer would forget; the disk then does nothing and says that it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forget {
    Nothing,
    /// Syncing segments.
    Segments,
    /// Syncing segments that are written anew.
    Successors,
    /// Syncing the names in the record directory.
    Names,
    /// Syncing the names above it.
    NamesAbove,
    /// Writing again, at open, what an earlier sync may have called clean.
    WritingAgain,
}

#[derive(Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    forget: Forget,
    /// One in this many operations is refused; 0: none.
    refusals: u64,
    /// Operations until the power goes.
    power: Option<u64>,
    directories: BTreeMap<PathBuf, Directory>,
    files: Vec<Content>,
    locked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Debug, Default)]
struct Directory {
    seen: BTreeMap<String, Node>,
    kept: BTreeMap<String, Node>,
    pending: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(String, Node),
    Remove(String),
    Replace { from: String, to: String, node: Node },
}

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    kept: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64, forget: Forget) -> Self {
        let directories = BTreeMap::from([(PathBuf::from("/"), Directory::default())]);
        let random = Random(seed);
        Self(Arc::new(Mutex::new(State {
            random,
            forget,
            refusals: 0,
            power: None,
            directories,
            files: Vec::new(),
            locked: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn refuse_one_in(&self, operations: u64) {
        self.state().refusals = operations;
    }

    pub(super) fn cut_power_after(&self, operations: u64) {
        self.state().power = Some(operations);
    }

    /// Power off and on again: what is seen now is what was kept.
    pub(super) fn restart(&self) {
        self.state().restart();
    }
}

impl State {
    /// Every operation that changes something or makes it durable passes here.
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = self.power.as_mut() {
            if *left == 0 {
                return Err(io::Error::other("the power is off"));
            }
            *left -= 1;
        }
        if self.refusals > 0 && self.random.below(self.refusals) == 0 {
            return Err(io::Error::other("the disk refuses"));
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.power = None;
        self.refusals = 0;
        for content in &mut self.files {
            content.keep_part(&mut self.random);
            content.seen.clone_from(&content.kept);
        }
        for directory in self.directories.values_mut() {
            directory.keep_part(&mut self.random);
            directory.seen.clone_from(&directory.kept);
        }
        let lost: Vec<PathBuf> =
            self.directories.keys().filter(|path| !self.is_reachable(path)).cloned().collect();
        for path in lost {
            self.directories.remove(&path);
        }
    }

    fn is_reachable(&self, path: &Path) -> bool {
        let Some(above) = path.parent() else { return true };
        let named = self.directories.get(above).is_some_and(|above| above.seen.contains_key(&name(path)));
        named && self.is_reachable(above)
    }

    fn above(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let above = path.parent().unwrap_or(Path::new("/"));
        self.directories.get_mut(above).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, path: &Path) -> io::Result<usize> {
        match self.above(path)?.seen.get(&name(path)) {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn change_names(&mut self, path: &Path, change: NameChange) -> io::Result<()> {
        let directory = self.above(path)?;
        change.apply(&mut directory.seen);
        directory.pending.push(change);
        Ok(())
    }

    fn forgets_sync_of(&self, path: &Path) -> bool {
        match self.forget {
            Forget::Segments => path.extension().is_some_and(|extension| extension == "seg"),
            Forget::Successors => path.extension().is_some_and(|extension| extension == "new"),
            _ => false,
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Replace { from, to, node } => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Directory {
    fn keep_part(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            if random.coin() {
                change.apply(&mut self.kept);
            }
        }
    }

    fn keep_all(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.kept);
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => content.resize(*length, 0),
        }
    }

    /// Some of it: all, nothing, its beginning, or its end behind zeros.
    fn apply_part(&self, content: &mut Vec<u8>, random: &mut Random) {
        match (self, random.below(4)) {
            (_, 0) => {}
            (Self::Write { at, bytes }, 1) => {
                let length = random.index(bytes.len() + 1);
                Self::Write { at: *at, bytes: bytes[..length].to_vec() }.apply(content);
            }
            (Self::Write { at, bytes }, 2) => {
                let skipped = random.index(bytes.len() + 1);
                Self::Write { at: at + skipped, bytes: bytes[skipped..].to_vec() }.apply(content);
            }
            _ => self.apply(content),
        }
    }
}

impl Content {
    fn keep_part(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            change.apply_part(&mut self.kept, random);
        }
    }

    fn keep_all(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.kept);
        }
    }

    /// What a refused sync does: data may be dropped for good; lengths are the journal's business, as names are.
    fn drop_part(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Cut(_) => change.apply(&mut self.kept),
                Change::Write { .. } => change.apply_part(&mut self.kept, random),
            }
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_str().unwrap().to_owned()
}

impl Disk for SimulatedDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if state.directories.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change_names(path, NameChange::Set(name(path), Node::Directory))?;
        state.directories.insert(path.to_owned(), Directory::default());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let found = state.directories.get(directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(found.seen.keys().cloned().collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = match state.file(path) {
            Err(_) if how == Open::Create => {
                state.step()?;
                let file = state.files.len();
                state.files.push(Content::default());
                state.change_names(path, NameChange::Set(name(path), Node::File(file)))?;
                file
            }
            found => found?,
        };
        Ok(Box::new(SimulatedFile { state: self.0.clone(), path: path.to_owned(), file, how, at: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let node = Node::File(state.file(from)?);
        state.change_names(to, NameChange::Replace { from: name(from), to: name(to), node })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.file(path)?;
        state.change_names(path, NameChange::Remove(name(path)))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        let refused = state.step();
        let forgotten = match state.forget {
            Forget::Names => directory == Path::new(super::DIRECTORY),
            Forget::NamesAbove => directory != Path::new(super::DIRECTORY),
            _ => false,
        };
        let state = &mut *state;
        let found = state.directories.get_mut(directory).ok_or(io::ErrorKind::NotFound)?;
        // Refused: the names stay to be synced. A journal either commits them or takes the file system out of service.
        if refused.is_ok() && !forgotten {
            found.keep_all();
        }
        refused
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimulatedLock(self.0.clone()))))
    }
}

#[derive(Debug)]
struct SimulatedLock(Arc<Mutex<State>>);

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.0.lock().unwrap().locked = false;
    }
}

#[derive(Debug)]
struct SimulatedFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    file: usize,
    how: Open,
    at: usize,
}

impl Read for SimulatedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        let rest = state.files[self.file].seen.get(self.at..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

impl Write for SimulatedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        let refused = state.step();
        let length = if refused.is_err() { state.random.index(bytes.len()) } else { bytes.len() };
        let at = if self.how == Open::Overwrite { self.at } else { state.files[self.file].seen.len() };
        let forgotten = self.how == Open::Overwrite && state.forget == Forget::WritingAgain;
        if length > 0 && !forgotten {
            state.files[self.file].change(Change::Write { at, bytes: bytes[..length].to_vec() });
        }
        self.at = at + length;
        refused.map(|()| length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimulatedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = |from: usize, by: i64| u64::try_from(i64::try_from(from).unwrap() + by).unwrap();
        let at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => moved(self.at, by),
            SeekFrom::End(by) => moved(self.state.lock().unwrap().files[self.file].seen.len(), by),
        };
        self.at = usize::try_from(at).unwrap();
        Ok(at)
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().files[self.file].seen.len() as u64)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step()?;
        state.files[self.file].change(Change::Cut(usize::try_from(bytes).unwrap()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let refused = state.step();
        let forgotten = state.forgets_sync_of(&self.path);
        let state = &mut *state;
        let content = &mut state.files[self.file];
        if refused.is_err() {
            content.drop_part(&mut state.random);
        } else if !forgotten {
            content.keep_all();
        }
        refused
    }
}
