//! What an agent has to know about running jobs when it starts again in their middle.
//!
//! In: the jobs, and the runner's children that they were named by. Out: a file in the state directory, written whenever a
//! job or step begins or a job ends, and its content at the next start. The lineage itself is the kernel side's. Nothing in
//! the file is believed in another boot, or about a process that is not in the kernel side's lineage.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use buildtrail_proto::v1;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{clock::BootTime, process::ProcessId};

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A process, as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedProcess {
    pid: u32,
    start_boot_time_ns: u64,
}

impl From<ProcessId> for SavedProcess {
    fn from(id: ProcessId) -> Self {
        Self { pid: id.pid, start_boot_time_ns: id.start.0 }
    }
}

impl From<SavedProcess> for ProcessId {
    fn from(saved: SavedProcess) -> Self {
        Self { pid: saved.pid, start: BootTime(saved.start_boot_time_ns) }
    }
}

/// A job that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedJob {
    /// Its identity.
    pub job: v1::Job,
    /// Whose job.
    pub runner: SavedProcess,
    /// When it was first seen, boot-time nanoseconds.
    pub started_boot_time_ns: u64,
    /// Its steps so far.
    pub steps: Vec<v1::Step>,
    /// What it did so far; up to when the file was written.
    pub summary: v1::JobFinished,
    /// Its runner has ended; some of its processes have not.
    #[serde(default)]
    pub over: bool,
    /// Which of its platform's ways to name a job.
    #[serde(default)]
    pub rule: usize,
    /// Its place at the runner.
    #[serde(default)]
    pub slot: String,
    /// The runner's children that work for it.
    #[serde(default)]
    pub roots: Vec<SavedProcess>,
}

/// A process that was named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRoot {
    /// Which.
    pub process: SavedProcess,
    /// Its job.
    pub job_id: String,
    /// Its step.
    pub step: Option<v1::Step>,
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The kernel's random boot id.
    pub boot_id: String,
    /// Jobs that run.
    pub jobs: Vec<SavedJob>,
    /// By whom they are known.
    pub roots: Vec<SavedRoot>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    /// The file in the agent's state directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self(directory.join("jobs.json"))
    }

    /// What was saved in this boot; nothing when there is no such file or it cannot be understood.
    #[must_use]
    pub fn read(&self, boot_id: &str) -> Saved {
        match self.try_read() {
            Ok(saved) if saved.boot_id == boot_id => saved,
            Ok(_) => Saved::default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::default(),
            Err(error) => {
                warn!(%error, file = %self.0.display(), "running jobs cannot be taken over from the last agent");
                Saved::default()
            }
        }
    }

    fn try_read(&self) -> io::Result<Saved> {
        if fs::metadata(&self.0)?.len() > MAX_BYTES {
            return Err(io::Error::other("the file is too long"));
        }
        Ok(serde_json::from_slice(&fs::read(&self.0)?)?)
    }

    /// Replaces the file. Not synced: it is for the next agent of this boot.
    pub fn write(&self, saved: &Saved) {
        if let Err(error) = self.try_write(saved) {
            warn!(%error, file = %self.0.display(), "running jobs cannot be noted for the next agent");
        }
    }

    fn try_write(&self, saved: &Saved) -> io::Result<()> {
        if let Some(directory) = self.0.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = self.0.with_extension("tmp");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        fs::rename(temporary, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_in_the_same_boot_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        assert_eq!(file.read("b1"), Saved::default());
        let process = SavedProcess { pid: 7, start_boot_time_ns: 9 };
        let root = SavedRoot { process, job_id: "j".into(), step: Some(v1::Step::default()) };
        let saved = Saved { boot_id: "b1".into(), jobs: Vec::new(), roots: vec![root] };
        file.write(&saved);
        assert_eq!(file.read("b1"), saved);
        assert_eq!(file.read("b2"), Saved::default());
        fs::write(directory.path().join("jobs.json"), "{").unwrap();
        assert_eq!(file.read("b1"), Saved::default(), "a broken file is no reason not to start");
    }
}
