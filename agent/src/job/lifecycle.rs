//! When jobs begin, end and go on.
//!
//! In: which runner's children were started and ended. Out: jobs that are over. A job ends with its runner, with the child
//! that runs it, when nothing of it has run for a while, or when another job has its place: as its platform's rule says.

use std::{
    collections::{HashSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use buildtrail_proto::v1;

use super::{JobState, JobTracker, platform::rule::Ends};
use crate::{clock::BootTime, process::ProcessId};

/// Ended jobs that are remembered because something of them could still start.
const MAX_RECENT: usize = 256;

/// What a job's end depends on.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub ends: Ends,
    pub slot: String,
    /// The runner's children that work for it and live.
    pub roots: HashSet<ProcessId>,
    /// Since when it has none.
    pub idle_since: Option<BootTime>,
    /// When a hook of the runner said that it ended, if nothing of it began since.
    pub told: Option<BootTime>,
    /// When it ended; its end is reported a little later.
    pub over: Option<BootTime>,
}

impl Lifecycle {
    pub(super) fn new(ends: Ends, slot: String) -> Self {
        Self { ends, slot, roots: HashSet::new(), idle_since: None, told: None, over: None }
    }

    fn ends_idle(&self) -> bool {
        matches!(self.ends, Ends::WhenIdle | Ends::WhenNothingIsLeft)
    }
}

/// Jobs that ended and may go on: between two steps nothing of them runs.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<JobState>);

impl Recent {
    pub(super) fn take(&mut self, job_id: &str) -> Option<JobState> {
        let at = self.0.iter().position(|state| state.job.job_id == job_id)?;
        self.0.remove(at)
    }

    pub(super) fn add(&mut self, state: JobState) {
        if !state.life.ends_idle() {
            return;
        }
        if self.0.len() >= MAX_RECENT {
            self.0.pop_front();
        }
        self.0.push_back(state);
    }
}

impl JobTracker {
    /// A child of a runner works for this job.
    pub(super) fn begin_root(state: &mut JobState, root: ProcessId) {
        state.life.roots.insert(root);
        state.life.idle_since = None;
        state.life.told = None;
        if state.life.ends_idle() {
            state.life.over = None;
        }
    }

    /// A child of a runner ended.
    pub fn root_ended(&mut self, root: ProcessId, time: BootTime) {
        for state in self.jobs.values_mut().filter(|state| state.life.roots.contains(&root)) {
            state.life.roots.remove(&root);
            if state.life.roots.is_empty() {
                state.life.idle_since = Some(time);
                if state.life.ends == Ends::WithChild || state.life.told.is_some() && state.life.ends_idle() {
                    state.life.over = Some(state.life.told.unwrap_or(time));
                }
            }
        }
    }

    /// A hook of the runner says that the job has ended, apart from the runner's own tidying: it is over when nothing of it
    /// runs any more, at this time. False when it is over already.
    pub fn tell_end(&mut self, job_id: &str, time: BootTime) -> bool {
        let Some(state) = self.jobs.get_mut(job_id) else { return false };
        state.life.told = Some(time);
        true
    }

    /// A runner ended, and with it its jobs.
    pub fn runner_ended(&mut self, runner: ProcessId, time: BootTime) {
        for state in self.jobs.values_mut().filter(|state| state.runner == runner) {
            let end = state.life.told.unwrap_or(time);
            state.life.over.get_or_insert(end);
        }
        self.recent.0.retain(|state| state.runner != runner);
    }

    /// Another job began in this one's place.
    pub(super) fn displace(&mut self, runner: ProcessId, slot: &str, by: &str, time: BootTime) {
        let in_slot = |state: &&mut JobState| {
            !slot.is_empty() && state.runner == runner && state.life.slot == slot && state.job.job_id != by
        };
        for state in self.jobs.values_mut().filter(in_slot) {
            let end = state.life.idle_since.unwrap_or(time);
            state.life.over.get_or_insert(end);
        }
    }

    /// Something waits for a job's end.
    #[must_use]
    pub fn has_ending(&self) -> bool {
        self.jobs.values().any(|state| state.life.over.is_some())
    }

    /// Some job will be over if nothing of it starts.
    #[must_use]
    pub fn has_idle(&self) -> bool {
        self.jobs.values().any(|state| state.life.ends_idle() && state.life.idle_since.is_some())
    }

    /// Ends jobs of which nothing has run for `patience`. `is_left` says whether a process of that job lives.
    pub fn end_idle(&mut self, now: BootTime, patience: Duration, is_left: impl Fn(&str) -> bool) {
        for state in self.jobs.values_mut().filter(|state| state.life.ends_idle()) {
            let Some(since) = state.life.idle_since else { continue };
            if state.life.over.is_some() || u128::from(now.since(since)) < patience.as_nanos() {
                continue;
            }
            if state.life.ends == Ends::WhenNothingIsLeft && is_left(&state.job.job_id) {
                state.life.idle_since = Some(now);
            } else {
                state.life.over = Some(since);
            }
        }
    }

    /// Takes the jobs whose end is due. They are remembered until [`Self::forget_over`].
    pub fn take_ended(&mut self, due: impl Fn(BootTime) -> bool) -> Vec<EndedJob> {
        let is_due = |state: &JobState| state.life.over.is_some_and(&due);
        let mut ended: Vec<JobState> =
            self.jobs.extract_if(|_, state| is_due(state)).map(|(_, state)| state).collect();
        ended.sort_by_key(|state| state.started);
        let finish = |state: JobState| {
            let time = state.life.over.unwrap_or(state.started);
            let told_by_hook = state.life.told == Some(time);
            let duration_ns = time.since(state.started);
            let summary = v1::JobFinished { duration_ns, told_by_hook, ..state.summary };
            let job = Rc::clone(&state.job);
            self.over.insert(job.job_id.clone(), state);
            EndedJob { job, summary, time }
        };
        ended.into_iter().map(finish).collect()
    }
}

/// A job that is over.
#[derive(Debug)]
pub struct EndedJob {
    /// Its identity.
    pub job: Rc<v1::Job>,
    /// What it did.
    pub summary: v1::JobFinished,
    /// When it ended.
    pub time: BootTime,
}
