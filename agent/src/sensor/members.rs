//! Lineage as the kernel side keeps it: which processes descend from a runner's child.
//!
//! While an agent runs it knows that from the records. These maps outlive it together with the pinned programs, so that
//! the next one finds who belongs to whom, whatever happened in between.

use aya::maps::{HashMap, Map, MapData, MapError};
use buildtrail_agent_abi::ProcessKey;
use tracing::warn;

use super::pins::Predecessor;
use crate::{clock::BootTime, process::ProcessId};

/// The programs' maps.
pub struct KernelMembers {
    runners: HashMap<MapData, PodProcessKey, u8>,
    members: HashMap<MapData, PodProcessKey, PodProcessKey>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodProcessKey(ProcessKey);

// SAFETY: repr(C) of integers without padding; any bytes are a valid value.
unsafe impl aya::Pod for PodProcessKey {}

impl std::fmt::Debug for KernelMembers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KernelMembers").finish_non_exhaustive()
    }
}

/// A descendant of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which process.
    pub process: ProcessId,
    /// The runner's child that it descends from, or is.
    pub root: ProcessId,
}

impl KernelMembers {
    /// Takes over the programs' maps.
    ///
    /// # Errors
    ///
    /// When one of them is not what the programs declare.
    pub fn new(runners: Map, members: Map) -> Result<Self, MapError> {
        Ok(Self { runners: HashMap::try_from(runners)?, members: HashMap::try_from(members)? })
    }

    /// From now on children of this process are roots.
    pub fn add_runner(&mut self, runner: ProcessId) {
        if let Err(error) = self.runners.insert(runner_key(runner), 1, 0) {
            warn!(%error, "a runner cannot be told to the kernel side: a restart of the agent would not know its jobs");
        }
    }

    /// A process has ended and all that it did has been reported. Those that are in neither map cost one look each.
    pub fn remove(&mut self, process: ProcessId) {
        // Nearly always the process is in neither.
        let _ = self.members.remove(&key(process));
        let _ = self.runners.remove(&runner_key(process));
    }

    /// Everyone.
    #[must_use]
    pub fn all(&self) -> Vec<Member> {
        let entries = self.members.iter().filter_map(Result::ok);
        entries.map(|(process, root)| Member { process: id(process), root: id(root) }).collect()
    }
}

/// Adds what an earlier agent's programs know to the maps of this one's.
///
/// # Errors
///
/// When a map is not what the programs declare; what could be added is.
pub fn inherit(earlier: &Predecessor, runners: &mut Map, members: &mut Map) -> Result<(), String> {
    let (old_runners, old_members) = (earlier.map("RUNNERS")?, earlier.map("MEMBERS")?);
    copy::<u8>(old_runners, runners).map_err(|error| error.to_string())?;
    copy::<PodProcessKey>(old_members, members).map_err(|error| error.to_string())
}

fn copy<V: aya::Pod>(from: Map, to: &mut Map) -> Result<(), MapError> {
    let from: HashMap<MapData, PodProcessKey, V> = HashMap::try_from(from)?;
    let mut to: HashMap<&mut MapData, PodProcessKey, V> = HashMap::try_from(to)?;
    for entry in &from {
        // An entry that goes meanwhile has ended.
        let Ok((process, value)) = entry else { continue };
        to.insert(process, value, 0)?;
    }
    Ok(())
}

fn key(process: ProcessId) -> PodProcessKey {
    PodProcessKey(ProcessKey::new(process.pid, process.start.0))
}

fn runner_key(process: ProcessId) -> PodProcessKey {
    PodProcessKey(ProcessKey::runner(process.pid, process.start.0))
}

fn id(PodProcessKey(key): PodProcessKey) -> ProcessId {
    ProcessId { pid: key.tgid, start: BootTime(key.start_boot_time_ns) }
}
