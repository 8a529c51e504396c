//! What jobs leave to each other on a host that lasts: files that one wrote and another uses, credentials that stay, and
//! runners that were changed.

mod memory;
mod runner_homes;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    rc::Rc,
};

use buildtrail_proto::{timestamp_from_unix_nanos, v1};
use v1::{ContaminationUse, audit_event::Body};

use super::{Pipeline, spoof::spoof};
use crate::{
    catalog::{
        Entry,
        heirlooms::{Heirloom, is_interpreter},
        runners,
        secret_paths::SecretPaths,
    },
    clock::BootTime,
    event::text::Notes,
    job::Membership,
    process::{Process, ProcessId},
    sensor::{
        files::FileId,
        records::Exec,
        written::{Act, Version},
    },
};
use memory::{Left, Memory};
use runner_homes::RunnerHomes;

/// Credential files of one job that are remembered.
const MAX_CREDENTIALS: usize = 256;
/// Uses of other jobs' files by one job that are told.
const MAX_TOLD: usize = 64;
/// Files of one job that are followed when it has ended.
const MAX_FOLLOWED: usize = 1024;

/// A credential file that a job wrote.
type Credential = (PathBuf, Rc<Entry>);

/// What jobs wrote.
#[derive(Debug, Default)]
pub(super) struct Heirlooms {
    pub(super) secrets: SecretPaths,
    memory: Memory,
    credentials: HashMap<String, HashMap<FileId, Credential>>,
    told: HashMap<String, HashSet<FileId>>,
    homes: RunnerHomes,
}

impl Heirlooms {
    /// Whether a job wrote the program that a process runs, and which.
    pub(super) fn writer_of_program(&self, pid: u32) -> Option<Rc<v1::Job>> {
        let metadata = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        self.memory.get(&Version::of(&metadata)).map(|left| Rc::clone(&left.job))
    }

    pub(super) fn add_runner(&mut self, executable: &[u8], platform: &str) {
        self.homes.add(executable, platform);
    }

    pub(super) fn forget_job(&mut self, job: &str) {
        self.told.remove(job);
        self.credentials.remove(job);
    }

    /// Files that are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.memory.len()
    }
}

impl Pipeline {
    /// Knows secrets by their paths.
    #[must_use]
    pub fn with_secrets(mut self, secrets: SecretPaths) -> Self {
        self.heirlooms.secrets = secrets;
        self
    }

    /// Somebody wrote a file, or read one that a job had left.
    pub(super) fn take_act(&mut self, act: &Act) {
        let user = self.in_job(self.find(act.process));
        if act.written {
            match user {
                Some((process, membership)) => self.remember(&process, &membership, act),
                // What is in it now is nobody's legacy.
                None => self.wishes.leave.extend(self.heirlooms.memory.forget(act.version.file)),
            }
        } else if act.read
            && let Some((process, membership)) = user
            && let Some(left) = self.heirlooms.memory.get(&act.version)
            && let Some(heirloom) = left.heirloom
        {
            let left = left.clone();
            self.tell_contamination(&process, &membership, act.time, use_of(heirloom), &act.path, &left);
        }
    }

    fn remember(&mut self, process: &Process, membership: &Membership, act: &Act) {
        self.look_at_runners_files(process, membership, act);
        let path = PathBuf::from(OsStr::from_bytes(&act.path));
        if let Some(entry) = self.heirlooms.secrets.entry(&act.path) {
            let job = membership.job.job_id.clone();
            let known = self.heirlooms.credentials.entry(job).or_default();
            if known.len() < MAX_CREDENTIALS {
                known.insert(act.version.file, (path.clone(), entry));
            }
        }
        let heirloom = Heirloom::of(&act.path);
        if heirloom.is_some_and(Heirloom::acts_by_itself) {
            self.wishes.follow.push((path.clone(), act.version));
        }
        let left = Left {
            job: Rc::clone(&membership.job),
            version: act.version,
            written: act.time,
            heirloom,
            path: heirloom.map(|_| path.into_boxed_path()),
        };
        self.wishes.leave.extend(self.heirlooms.memory.insert(left));
    }

    fn look_at_runners_files(&mut self, process: &Process, membership: &Membership, act: &Act) {
        let (kind, platform) = match self.heirlooms.homes.platform_of(&act.path) {
            Some(platform) => (v1::SpoofKind::RunnerFiles, platform.to_owned()),
            None => match runners::registration(&act.path) {
                Some(platform) => (v1::SpoofKind::RunnerRegistration, platform.to_owned()),
                None => return,
            },
        };
        let mut notes = Notes::default();
        let path = notes.text(&act.path);
        let body = v1::IdentitySpoof { path: path.clone(), platform, ..spoof(kind) };
        self.tell_spoof(process, membership, act.time, notes, path, body);
    }

    /// Whether a job's process executes, or has an interpreter run, what another job wrote.
    pub(super) fn look_for_contamination(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        exec: &Exec,
        directory: &[u8],
    ) {
        if self.heirlooms.memory.is_empty() {
            return;
        }
        let program = FileId { device: u64::from(exec.device), inode: exec.inode };
        let executed =
            self.heirlooms.memory.of_file(program).cloned().map(|left| (left, process.executable.to_vec()));
        // Of a script the interpreter is what runs.
        let script = || self.left_at(&exec.filename, directory, process.id);
        if let Some((left, path)) = executed.or_else(script) {
            self.tell_contamination(process, membership, time, ContaminationUse::Executed, &path, &left);
        }
        if is_interpreter(&process.executable)
            && let Some(argument) = script_argument(exec)
            && let Some((left, path)) = self.left_at(argument, directory, process.id)
        {
            self.tell_contamination(process, membership, time, ContaminationUse::Sourced, &path, &left);
        }
    }

    /// What a job left under the name that a process knows it by.
    fn left_at(&self, name: &[u8], directory: &[u8], id: ProcessId) -> Option<(Left, Vec<u8>)> {
        let path = if name.starts_with(b"/") { name.to_vec() } else { [directory, b"/", name].concat() };
        let in_root = [format!("/proc/{}/root", id.pid).as_bytes(), &path].concat();
        let metadata =
            [&in_root, &path].into_iter().find_map(|path| fs::metadata(OsStr::from_bytes(path)).ok())?;
        let left = self.heirlooms.memory.get(&Version::of(&metadata))?;
        Some((left.clone(), path))
    }

    fn tell_contamination(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        how: ContaminationUse,
        path: &[u8],
        left: &Left,
    ) {
        if left.job.job_id == membership.job.job_id {
            return;
        }
        let told = self.heirlooms.told.entry(membership.job.job_id.clone()).or_default();
        if told.len() >= MAX_TOLD || !told.insert(left.version.file) {
            return;
        }
        let mut notes = Notes { truncated: told.len() == MAX_TOLD, ..Notes::default() };
        let body = v1::Contamination {
            r#use: how.into(),
            path: notes.text(path),
            device: left.version.file.device,
            inode: left.version.file.inode,
            writer: Some(left.job.as_ref().clone()),
            written: Some(timestamp_from_unix_nanos(left.written.to_unix_nanos())),
        };
        self.emit(time, Some(membership), Some(process), notes, Body::Contamination(body));
    }

    /// The job is over: tells which credentials it leaves, and has what it leaves followed. Returns how many credentials.
    pub(super) fn settle_heirlooms(&mut self, membership: &Membership, time: BootTime) -> u64 {
        let job = &membership.job.job_id;
        let followed: Vec<(PathBuf, Version)> =
            self.heirlooms.memory.to_follow(job).take(MAX_FOLLOWED).collect();
        self.wishes.follow.extend(followed);
        let mut credentials: Vec<(FileId, Credential)> =
            self.heirlooms.credentials.remove(job).into_iter().flatten().collect();
        credentials.sort_by(|(_, (one, _)), (_, (two, _))| one.cmp(two));
        let mut left = 0;
        for (file, (path, entry)) in credentials {
            let Some(metadata) = there(&path, file) else { continue };
            left += 1;
            let mut notes = Notes::default();
            let body = v1::CredentialLeftBehind {
                secret: entry.name.clone(),
                family: entry.family.clone(),
                path: notes.text(path.as_os_str().as_bytes()),
                device: file.device,
                inode: file.inode,
                uid: metadata.uid(),
                mode: metadata.mode(),
            };
            self.emit(time, Some(membership), None, notes, Body::CredentialLeftBehind(body));
        }
        left
    }
}

/// The file, if it is still at its place and not empty.
fn there(path: &Path, file: FileId) -> Option<fs::Metadata> {
    let metadata = fs::symlink_metadata(path).ok()?;
    (FileId::of(&metadata) == file && metadata.len() > 0).then_some(metadata)
}

fn use_of(heirloom: Heirloom) -> ContaminationUse {
    match heirloom {
        Heirloom::Settings => ContaminationUse::Configuration,
        Heirloom::StartUp | Heirloom::Script => ContaminationUse::Sourced,
        Heirloom::Library => ContaminationUse::Loaded,
    }
}

/// The script that an interpreter was told to run: its first argument that is no option. `-c` brings its own.
fn script_argument(exec: &Exec) -> Option<&[u8]> {
    let mut arguments = exec.arguments.iter().skip(1).take_while(|argument| *argument != b"-c");
    arguments.find(|argument| !argument.starts_with(b"-")).map(Vec::as_slice)
}
