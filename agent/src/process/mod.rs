//! The host's processes, as the kernel reported their births, executions and ends.
//!
//! In: fork, exec and exit records in the order in which they happened, and once, at start, a snapshot of /proc. Out:
//! for a process id and start time, who that is and to which job it belongs. Must never forget a live process, take one
//! process for another that had the same id, or believe anything that a process says about itself.

pub mod look;
mod snapshot;

use std::{collections::HashMap, rc::Rc};

use buildtrail_proto::v1;

use crate::{clock::BootTime, job::Membership, sensor::records::Users};

pub use snapshot::snapshot;

/// How long a process that ended is remembered for events about it that are still on their way, in nanoseconds.
const MEMORY_OF_THE_DEAD: u64 = 10_000_000_000;
/// /proc tells start times in hundredths of a second (`USER_HZ`).
pub(crate) const COARSE_START: u64 = 10_000_000;

/// Unique within a boot. Start 0: a process of which only the number is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// Process id in the host's namespace.
    pub pid: u32,
    /// When it started.
    pub start: BootTime,
}

impl ProcessId {
    /// Whether both name the same process, although one of them may come from /proc, which rounds start times down.
    fn matches(self, other: Self) -> bool {
        let coarse = |id: Self| id.start.0.is_multiple_of(COARSE_START);
        let same_start = self.start == other.start
            || ((coarse(self) || coarse(other))
                && self.start.0 / COARSE_START == other.start.0 / COARSE_START);
        self.pid == other.pid && same_start
    }
}

/// How a process came to be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing to do with any runner.
    Other,
    /// A runner: the jobs' processes are its descendants.
    Runner,
    /// Created by a runner, or descended from such a process while nobody knew for which job.
    RunnerChild {
        /// The runner.
        runner: ProcessId,
        /// What the runner itself created.
        root: ProcessId,
    },
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Parent as the kernel counts it at the last fork or exec.
    pub parent_pid: u32,
    /// Who created it; of processes that the snapshot found, their parent then.
    pub creator: Option<ProcessId>,
    /// It has executed a program since it was created.
    pub executed: bool,
    /// What runs, as the host sees it.
    pub executable: Rc<[u8]>,
    /// Whose rights it has.
    pub users: Users,
    /// What it is to the runners.
    pub role: Role,
    /// The job and step that it works for.
    pub membership: Option<Membership>,
    /// The container that an engine started it or an ancestor of it in.
    pub container: Option<Rc<str>>,
    ended: Option<BootTime>,
}

impl Process {
    /// A process of which nothing else is known.
    #[must_use]
    pub fn unknown(id: ProcessId, parent_pid: u32, users: Users) -> Self {
        Self {
            id,
            parent_pid,
            creator: None,
            executed: false,
            executable: Rc::from([]),
            users,
            role: Role::Other,
            membership: None,
            container: None,
            ended: None,
        }
    }

    /// Runner that created this process, if one did.
    #[must_use]
    pub fn creator_runner(&self) -> Option<ProcessId> {
        match self.role {
            Role::RunnerChild { runner, .. } => Some(runner),
            Role::Other | Role::Runner => None,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct ProcessTable {
    live: HashMap<u32, Process>,
    dead: HashMap<u32, Vec<Process>>,
    next_sweep: BootTime,
}

impl ProcessTable {
    /// Adds a process that the snapshot found, unless the kernel reported it meanwhile.
    pub fn insert_snapshot(&mut self, process: Process) {
        self.live.entry(process.id.pid).or_insert(process);
    }

    /// Adds a process that an earlier agent knew. Where the snapshot has it, its exact start is learned: /proc rounds.
    pub fn insert_known(&mut self, process: Process) {
        match self.live.get_mut(&process.id.pid) {
            Some(same) if same.id.matches(process.id) => same.id = process.id,
            // Another one has its number: it has ended.
            Some(_) => self.bury(process, BootTime::now()),
            None => {
                self.live.insert(process.id.pid, process);
            }
        }
    }

    /// A process was created: it begins as its creator's twin.
    pub fn fork(&mut self, creator: ProcessId, child: ProcessId, parent_pid: u32, users: Users) {
        let mut process = Process::unknown(child, parent_pid, users);
        process.creator = Some(creator);
        if let Some(creator) = self.get(creator) {
            process.executable = Rc::clone(&creator.executable);
            process.membership.clone_from(&creator.membership);
            process.container.clone_from(&creator.container);
            process.role = match creator.role {
                Role::Runner => Role::RunnerChild { runner: creator.id, root: child },
                role @ Role::RunnerChild { .. } if creator.membership.is_none() => role,
                Role::RunnerChild { .. } | Role::Other => Role::Other,
            };
        }
        match self.live.insert(child.pid, process) {
            // The snapshot had it already.
            Some(same) if same.id.matches(child) => {}
            // Its end was not reported: the id would not have been used again otherwise.
            Some(old) => self.bury(old, child.start),
            None => {}
        }
    }

    /// The process for an exec record; created from its parent when its birth was not seen.
    pub fn entry(&mut self, id: ProcessId, parent_pid: u32, users: Users) -> &mut Process {
        let known = self.live.get(&id.pid).is_some_and(|process| process.id.matches(id));
        if !known {
            let parent = self.live.get(&parent_pid).map(|parent| parent.id);
            let creator = parent.unwrap_or(ProcessId { pid: parent_pid, start: BootTime(0) });
            self.fork(creator, id, parent_pid, users);
        }
        self.live.entry(id.pid).or_insert_with(|| Process::unknown(id, parent_pid, users))
    }

    /// A process ended. Returns it.
    pub fn exit(&mut self, id: ProcessId, time: BootTime) -> Option<&Process> {
        if !self.live.get(&id.pid)?.id.matches(id) {
            return None;
        }
        let process = self.live.remove(&id.pid)?;
        self.bury(process, time);
        self.dead.get(&id.pid)?.last()
    }

    /// Says what a process works for; nothing happens when it is not known.
    pub fn set_membership(&mut self, id: ProcessId, membership: Option<Membership>) {
        let live = self.live.get_mut(&id.pid).into_iter();
        let dead = self.dead.get_mut(&id.pid).into_iter().flatten();
        if let Some(process) = live.chain(dead).find(|process| process.id.matches(id)) {
            process.membership = membership;
        }
    }

    /// Says what all processes work for that come from `root` and that nobody has named yet.
    pub fn name_tree(&mut self, root: ProcessId, membership: &Membership) {
        let all = self.live.values_mut().chain(self.dead.values_mut().flatten());
        for process in all.filter(|process| process.membership.is_none()) {
            if matches!(process.role, Role::RunnerChild { root: of, .. } if of.matches(root)) {
                process.membership = Some(membership.clone());
            }
        }
    }

    /// A job's identity is known better.
    pub fn replace_job(&mut self, job: &Rc<v1::Job>) {
        let all = self.live.values_mut().chain(self.dead.values_mut().flatten());
        for membership in all.filter_map(|process| process.membership.as_mut()) {
            if membership.job.job_id == job.job_id {
                membership.job = Rc::clone(job);
            }
        }
    }

    /// Says in which container a process begins.
    pub fn set_container(&mut self, id: ProcessId, container: &str) {
        if let Some(process) = self.live.get_mut(&id.pid).filter(|process| process.id.matches(id)) {
            process.container = Some(Rc::from(container));
        }
    }

    /// Says that a process works for a runner, although it was not created by it.
    pub fn set_runner(&mut self, id: ProcessId, runner: ProcessId) {
        if let Some(process) = self.live.get_mut(&id.pid).filter(|process| process.id.matches(id)) {
            process.role = Role::RunnerChild { runner, root: process.id };
        }
    }

    /// The process with this id and start, live or recently ended.
    #[must_use]
    pub fn get(&self, id: ProcessId) -> Option<&Process> {
        let live = self.live.get(&id.pid).filter(|process| process.id.matches(id));
        live.or_else(|| self.dead.get(&id.pid)?.iter().rev().find(|process| process.id.matches(id)))
    }

    /// Whether this process has not ended.
    #[must_use]
    pub fn lives(&self, id: ProcessId) -> bool {
        self.live.get(&id.pid).is_some_and(|process| process.id.matches(id))
    }

    /// The live process with this number.
    #[must_use]
    pub fn live(&self, pid: u32) -> Option<&Process> {
        self.live.get(&pid)
    }

    /// All live processes.
    pub fn all_live(&self) -> impl Iterator<Item = &Process> {
        self.live.values()
    }

    /// How many processes are known: those that live, and those that ended a short while ago.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.live.len(), self.dead.values().map(Vec::len).sum())
    }

    /// The process that most recently ended with this number.
    #[must_use]
    pub fn last_dead(&self, pid: u32) -> Option<&Process> {
        self.dead.get(&pid)?.last()
    }

    /// Forgets those that ended long ago.
    pub fn sweep(&mut self, now: BootTime) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = BootTime(now.0 + MEMORY_OF_THE_DEAD / 10);
        self.dead.retain(|_, processes| {
            processes
                .retain(|process| process.ended.is_some_and(|ended| now.since(ended) < MEMORY_OF_THE_DEAD));
            !processes.is_empty()
        });
    }

    fn bury(&mut self, mut process: Process, time: BootTime) {
        process.ended = Some(time);
        self.dead.entry(process.id.pid).or_default().push(process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32, start: u64) -> ProcessId {
        ProcessId { pid, start: BootTime(start * COARSE_START) }
    }

    fn table_with_runner() -> ProcessTable {
        let mut table = ProcessTable::default();
        table.entry(id(10, 1), 1, Users::default()).role = Role::Runner;
        table
    }

    #[test]
    fn a_runners_child_knows_its_runner_and_grandchildren_inherit_it_until_named() {
        let mut table = table_with_runner();
        table.fork(id(10, 1), id(11, 2), 10, Users::default());
        table.fork(id(11, 2), id(12, 3), 11, Users::default());
        assert_eq!(table.get(id(11, 2)).unwrap().creator_runner(), Some(id(10, 1)));
        assert_eq!(table.get(id(12, 3)).unwrap().creator_runner(), Some(id(10, 1)));
    }

    #[test]
    fn membership_survives_the_creators_end_and_a_new_parent() {
        let mut table = table_with_runner();
        table.fork(id(10, 1), id(11, 2), 10, Users::default());
        table.entry(id(11, 2), 10, Users::default()).membership = Some(Membership::for_test("job"));
        table.fork(id(11, 2), id(12, 3), 1, Users::default());
        table.exit(id(11, 2), BootTime(5));
        table.fork(id(12, 3), id(13, 4), 1, Users::default());
        assert_eq!(table.get(id(13, 4)).unwrap().membership, Some(Membership::for_test("job")));
    }

    #[test]
    fn a_reused_process_id_is_another_process() {
        let mut table = table_with_runner();
        table.fork(id(10, 1), id(11, 2), 10, Users::default());
        table.exit(id(11, 2), BootTime(3 * COARSE_START));
        table.fork(id(1, 0), id(11, 4), 1, Users::default());
        assert_eq!(table.get(id(11, 4)).unwrap().creator_runner(), None);
        assert_eq!(table.get(id(11, 2)).unwrap().creator_runner(), Some(id(10, 1)));
        assert!(table.exit(id(11, 2), BootTime(9)).is_none(), "an end seen twice ends nobody else");
    }

    #[test]
    fn what_an_earlier_agent_knew_is_joined_with_what_proc_tells() {
        let mut table = ProcessTable::default();
        table.insert_snapshot(Process::unknown(id(10, 1), 1, Users::default()));
        let exact = ProcessId { pid: 10, start: BootTime(COARSE_START + 7) };
        table.insert_known(Process::unknown(exact, 0, Users::default()));
        assert_eq!(table.live(10).map(|process| (process.id, process.parent_pid)), Some((exact, 1)));
        let earlier = id(10, 0);
        table.insert_known(Process::unknown(earlier, 0, Users::default()));
        table.set_membership(earlier, Some(Membership::for_test("job")));
        assert_eq!(table.live(10).map(|process| process.id), Some(exact), "the number was used again");
        assert_eq!(
            table.get(earlier).and_then(|dead| dead.membership.clone()),
            Some(Membership::for_test("job"))
        );
    }

    #[test]
    fn the_dead_are_forgotten_after_a_while() {
        let mut table = table_with_runner();
        table.exit(id(10, 1), BootTime(1));
        table.sweep(BootTime(2));
        assert!(table.last_dead(10).is_some());
        table.sweep(BootTime(2 + 2 * MEMORY_OF_THE_DEAD));
        assert!(table.last_dead(10).is_none());
    }
}
