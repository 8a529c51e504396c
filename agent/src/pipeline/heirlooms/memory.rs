//! Which job wrote a file last, for as many files as there is room for: the oldest are forgotten first.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
};

use buildtrail_proto::v1;

use crate::{
    catalog::heirlooms::Heirloom,
    clock::BootTime,
    sensor::{files::FileId, written::Version},
};

/// Files that something uses by itself or loads.
const MAX_NAMED: usize = 8192;
/// Others: only that they are executed is noticed.
const MAX_OTHERS: usize = 32_768;

/// A file that a job wrote.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) job: Rc<v1::Job>,
    pub(super) version: Version,
    pub(super) written: BootTime,
    pub(super) heirloom: Option<Heirloom>,
    /// Of heirlooms.
    pub(super) path: Option<Box<Path>>,
}

/// The files.
#[derive(Debug, Default)]
pub(super) struct Memory {
    named: Shelf,
    others: Shelf,
}

#[derive(Debug, Default)]
struct Shelf {
    files: HashMap<FileId, Left>,
    order: VecDeque<FileId>,
}

impl Shelf {
    /// Returns what had to go.
    fn insert(&mut self, left: Left, most: usize) -> Option<Left> {
        let file = left.version.file;
        if self.files.insert(file, left).is_some() {
            return None;
        }
        self.order.push_back(file);
        if self.files.len() <= most {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.files.remove(&oldest)
    }

    fn remove(&mut self, file: FileId) -> Option<Left> {
        let left = self.files.remove(&file)?;
        self.order.retain(|known| *known != file);
        Some(left)
    }
}

impl Memory {
    pub(super) fn is_empty(&self) -> bool {
        self.named.files.is_empty() && self.others.files.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.named.files.len() + self.others.files.len()
    }

    /// Remembers a file. Returns the place of one that need not be followed any more.
    pub(super) fn insert(&mut self, left: Left) -> Option<PathBuf> {
        let (own, other, most) = if left.heirloom.is_some() {
            (&mut self.named, &mut self.others, MAX_NAMED)
        } else {
            (&mut self.others, &mut self.named, MAX_OTHERS)
        };
        let moved = other.remove(left.version.file).and_then(place);
        own.insert(left, most).and_then(place).or(moved)
    }

    /// A file that somebody outside jobs wrote. Returns its place, if it is one to be followed no more.
    pub(super) fn forget(&mut self, file: FileId) -> Option<PathBuf> {
        self.named.remove(file).or_else(|| self.others.remove(file)).and_then(place)
    }

    /// By the file alone: for what is known to be the same inode just now.
    pub(super) fn of_file(&self, file: FileId) -> Option<&Left> {
        self.named.files.get(&file).or_else(|| self.others.files.get(&file))
    }

    /// The job's version of this file, if it is that.
    pub(super) fn get(&self, version: &Version) -> Option<&Left> {
        self.of_file(version.file).filter(|left| left.version.is_same_file(version))
    }

    /// What a job leaves that others could load or run, beside what was followed from the start.
    pub(super) fn to_follow<'a>(&'a self, job: &'a str) -> impl Iterator<Item = (PathBuf, Version)> + 'a {
        self.named.files.values().filter_map(move |left| {
            let late = left.heirloom.is_some_and(|heirloom| !heirloom.acts_by_itself());
            let path = left.path.as_deref().filter(|_| late && left.job.job_id == job)?;
            Some((path.to_owned(), left.version))
        })
    }
}

fn place(left: Left) -> Option<PathBuf> {
    left.path.map(Path::into_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(inode: u64, heirloom: Option<Heirloom>) -> Left {
        let version = Version { file: FileId { device: 1, inode }, created: None, changed: (1, 1) };
        let path = heirloom.map(|_| PathBuf::from(format!("/{inode}")).into_boxed_path());
        Left { job: Rc::default(), version, written: BootTime(1), heirloom, path }
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let mut memory = Memory::default();
        let most = u64::try_from(MAX_NAMED).unwrap();
        for inode in 0..most {
            assert_eq!(memory.insert(left(inode, Some(Heirloom::Settings))), None);
        }
        assert_eq!(memory.insert(left(most, Some(Heirloom::Settings))), Some("/0".into()));
        for inode in 0..2 * u64::try_from(MAX_OTHERS).unwrap() {
            memory.insert(left(100_000 + inode, None));
        }
        assert_eq!(memory.len(), MAX_NAMED + MAX_OTHERS);
    }

    #[test]
    fn a_file_written_again_is_remembered_once_and_one_that_changed_otherwise_is_another() {
        let mut memory = Memory::default();
        for _ in 0..3 {
            memory.insert(left(1, None));
            memory.insert(left(1, Some(Heirloom::Script)));
        }
        assert_eq!(memory.len(), 1);
        let version = left(1, None).version;
        assert!(memory.get(&version).is_some());
        assert!(memory.get(&Version { changed: (2, 2), ..version }).is_none());
        assert_eq!(memory.forget(version.file), Some("/1".into()));
        assert!(memory.is_empty());
    }
}
