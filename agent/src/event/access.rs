//! Opens, reads and writes of one secret by one process become one `secret.access`.

use std::{collections::HashMap, rc::Rc};

use buildtrail_proto::v1;

use super::text::Notes;
use crate::{
    catalog::Entry,
    clock::BootTime,
    process::ProcessId,
    sensor::files::{FileEvent, FileId, Operations, Seen},
};

/// How long an access waits for what belongs to it, in nanoseconds.
const WINDOW: u64 = 50_000_000;

/// What one process did to one secret.
#[derive(Clone, Debug)]
pub struct Access {
    /// When it began.
    pub time: BootTime,
    /// By whom.
    pub process: ProcessId,
    entry: Rc<Entry>,
    path: Vec<u8>,
    file: FileId,
    operations: Operations,
    seen: Option<Seen>,
}

impl Access {
    /// Body of `secret.access`.
    #[must_use]
    pub fn body(&self, notes: &mut Notes) -> v1::SecretAccess {
        v1::SecretAccess {
            secret: self.entry.name.clone(),
            family: self.entry.family.clone(),
            path: notes.text(&self.path),
            device: self.file.device,
            inode: self.file.inode,
            operations: self.operations.reported().map(Into::into).collect(),
            job_path: self.seen.as_ref().map(|seen| notes.text(&seen.path)).unwrap_or_default(),
            way: self.seen.as_ref().map_or(v1::FileWay::Unspecified, |seen| seen.way).into(),
            by_name: self.seen.as_ref().is_some_and(|seen| seen.by_name),
        }
    }
}

/// What tells more of how the process came to the file: an open rather than a rename before it.
fn better(first: Option<Seen>, second: Option<Seen>) -> Option<Seen> {
    let knows_way = |seen: &Seen| seen.way != v1::FileWay::Unspecified;
    match (first, second) {
        (Some(first), Some(second)) if !knows_way(&first) && knows_way(&second) => Some(second),
        (first, second) => first.or(second),
    }
}

/// Accesses that are not complete yet.
#[derive(Debug, Default)]
pub struct AccessMerger {
    pending: HashMap<(ProcessId, FileId), Access>,
}

impl AccessMerger {
    /// Takes an event of `process`; returns the access when it is complete.
    pub fn add(&mut self, process: ProcessId, event: FileEvent) -> Option<Access> {
        let key = (process, event.file);
        let closed = event.operations.contains(Operations::CLOSE);
        let access = match self.pending.remove(&key) {
            Some(mut access) => {
                access.operations = access.operations.union(event.operations);
                access.seen = better(access.seen, event.seen);
                access
            }
            // The end of an access that was reported already.
            None if event.operations == Operations::CLOSE => return None,
            None => Access {
                time: event.time,
                process,
                entry: event.entry,
                path: event.path,
                file: event.file,
                operations: event.operations,
                seen: event.seen,
            },
        };
        if closed {
            return Some(access);
        }
        self.pending.insert(key, access);
        None
    }

    /// Accesses that have waited long enough, oldest first.
    pub fn expired(&mut self, now: BootTime) -> Vec<Access> {
        self.take(|access| now.since(access.time) >= WINDOW)
    }

    /// Accesses of the processes that `chosen` names, oldest first, complete or not.
    pub fn flush(&mut self, chosen: impl Fn(ProcessId) -> bool) -> Vec<Access> {
        self.take(|access| chosen(access.process))
    }

    /// Whether something waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn take(&mut self, ready: impl Fn(&Access) -> bool) -> Vec<Access> {
        let mut taken: Vec<Access> =
            self.pending.extract_if(|_, access| ready(access)).map(|(_, access)| access).collect();
        taken.sort_by_key(|access| access.time);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::files::Who;

    const PROCESS: ProcessId = ProcessId { pid: 5, start: BootTime(1) };

    fn event(operations: Operations, time: u64) -> FileEvent {
        FileEvent {
            time: BootTime(time),
            process: Who::Known(PROCESS),
            entry: Rc::new(Entry { name: "AWS shared credentials".into(), family: "aws".into() }),
            path: b"/home/a/.aws/credentials".to_vec(),
            file: FileId { device: 1, inode: 2 },
            operations,
            in_jobs_only: false,
            seen: None,
        }
    }

    const OPEN: Operations = Operations::OPEN;
    const READ: Operations = Operations::READ;
    const CLOSE: Operations = Operations::CLOSE;

    #[test]
    fn open_read_close_is_one_access() {
        let mut merger = AccessMerger::default();
        assert!(merger.add(PROCESS, event(OPEN, 1)).is_none());
        assert!(merger.add(PROCESS, event(READ, 2)).is_none());
        let access = merger.add(PROCESS, event(CLOSE, 3)).unwrap();
        let body = access.body(&mut Notes::default());
        assert_eq!(body.operations, [v1::Operation::Open as i32, v1::Operation::Read as i32]);
        assert_eq!(access.time, BootTime(1));
        assert!(merger.is_empty());
    }

    #[test]
    fn an_access_that_stays_open_is_reported_after_the_window_and_its_close_is_not_another() {
        let mut merger = AccessMerger::default();
        merger.add(PROCESS, event(OPEN.union(READ), 1));
        assert!(merger.expired(BootTime(2)).is_empty());
        assert_eq!(merger.expired(BootTime(1 + WINDOW)).len(), 1);
        assert!(merger.add(PROCESS, event(CLOSE, 2 + WINDOW)).is_none());
        merger.add(PROCESS, event(READ, 3 + WINDOW));
        assert_eq!(merger.flush(|_| true).len(), 1, "a later read is reported again");
    }

    #[test]
    fn an_open_tells_more_of_the_way_than_a_rename_before_it() {
        let seen = |way, path: &str| Some(Seen { path: path.into(), way, by_name: false });
        let rename = seen(v1::FileWay::Unspecified, "credentials");
        let open = seen(v1::FileWay::Open, "/tmp/moved");
        assert_eq!(better(rename.clone(), open.clone()), open);
        assert_eq!(better(open.clone(), rename), open);
        assert_eq!(better(None, open.clone()), open);
    }
}
