//! Going on in the middle of jobs that an earlier agent knew.

use std::collections::HashMap;

use super::Pipeline;
use crate::{
    job::{
        Membership,
        saved::{Saved, SavedRoot},
    },
    process::{Process, ProcessId, Role},
    sensor::{LineageNews, members::Member, records::Users},
};

/// What the kernel side and the next agent are to know.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    /// Processes that were named, with what they were named.
    named: HashMap<ProcessId, SavedRoot>,
    news: LineageNews,
    changed: bool,
}

impl Heritage {
    pub(super) fn name(&mut self, process: ProcessId, membership: &Membership) {
        let root = SavedRoot {
            process: process.into(),
            job_id: membership.job.job_id.clone(),
            step: membership.step.as_deref().cloned(),
        };
        self.named.insert(process, root);
        self.changed = true;
    }

    pub(super) fn add_runner(&mut self, runner: ProcessId) {
        self.news.runners.push(runner);
    }

    /// Descendants may go on: a name is forgotten with its job.
    pub(super) fn end_process(&mut self, process: ProcessId) {
        self.news.ended.push(process);
    }

    pub(super) fn end_job(&mut self, job_id: &str) {
        self.named.retain(|_, root| root.job_id != job_id);
        self.changed = true;
    }
}

impl Pipeline {
    /// Takes over the jobs of an earlier agent: `members` are in the lineage that the kernel side kept.
    pub fn resume(&mut self, saved: Saved, members: &[Member]) {
        let named: HashMap<ProcessId, SavedRoot> =
            saved.roots.into_iter().map(|root| (root.process.into(), root)).collect();
        for job in saved.jobs {
            let runner: ProcessId = job.runner.into();
            // It may have ended meanwhile: the record of its end is still to come.
            let mut process = Process::unknown(runner, 0, Users::default());
            process.role = Role::Runner;
            self.processes.insert_known(process);
            self.jobs.restore(job);
        }
        for member in members {
            let Some(root) = named.get(&member.process).or_else(|| named.get(&member.root)) else { continue };
            let membership = self.jobs.membership(&root.job_id, root.step.as_ref());
            self.processes.insert_known(Process::unknown(member.process, 0, Users::default()));
            self.processes.set_membership(member.process, membership);
        }
        self.heritage.named = named;
    }

    /// What the kernel side is to know since the last time.
    pub fn take_lineage_news(&mut self) -> LineageNews {
        std::mem::take(&mut self.heritage.news)
    }

    /// The state for the next agent, when it has changed.
    pub fn take_changed_state(&mut self) -> Option<Saved> {
        std::mem::take(&mut self.heritage.changed).then(|| self.state())
    }

    /// The state for the next agent.
    #[must_use]
    pub fn state(&self) -> Saved {
        Saved {
            boot_id: self.jobs.boot_id().to_string(),
            jobs: self.jobs.save(),
            roots: self.heritage.named.values().cloned().collect(),
        }
    }
}
