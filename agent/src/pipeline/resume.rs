//! Going on in the middle of jobs that an earlier agent knew.

use std::{collections::HashMap, rc::Rc};

use super::Pipeline;
use crate::{
    clock::BootTime,
    job::{
        Membership,
        saved::{Saved, SavedRoot},
    },
    process::{Process, ProcessId, Role, look},
    sensor::{members::Member, records::Users},
};

/// What the next agent is to know.
#[derive(Debug, Default)]
pub(super) struct Heritage {
    /// Processes that were named, with what they were named.
    named: HashMap<ProcessId, SavedRoot>,
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
            let Some(platform) = self.platforms.named(&job.job.platform) else { continue };
            if !job.over {
                // It may have ended meanwhile: the record of its end is still to come.
                let mut process = Process::unknown(runner, 0, Users::default());
                process.role = Role::Runner;
                self.processes.insert_known(process);
                self.naming.add_runner(runner, Rc::clone(&platform));
            }
            let processes = &self.processes;
            self.jobs.restore(platform, job, |root| processes.lives(root));
        }
        for member in members {
            let Some(root) = named.get(&member.process).or_else(|| named.get(&member.root)) else { continue };
            let membership = self.jobs.membership(&root.job_id, root.step.as_ref());
            self.processes.insert_known(Process::unknown(member.process, 0, Users::default()));
            self.processes.set_membership(member.process, membership);
        }
        self.heritage.named = named;
    }

    /// Finds the jobs that were running before any agent was: by the lineage that /proc still shows, and by what runners
    /// gave to their children. A process can have rewritten that since, so it counts as asserted.
    pub fn recover(&mut self) {
        let mut unnamed: Vec<(ProcessId, u32, Users)> = self
            .processes
            .all_live()
            .filter(|process| process.membership.is_none() && process.creator_runner().is_some())
            .map(|process| (process.id, process.parent_pid, process.users))
            .collect();
        unnamed.sort_unstable_by_key(|(id, ..)| *id);
        self.recovering = true;
        let platforms = self.platforms.clone();
        for (id, parent, users) in unnamed {
            let inherited = self.processes.live(parent).and_then(|parent| parent.membership.clone());
            if inherited.is_some() {
                self.processes.set_membership(id, inherited);
            } else if let Some(exec) = look::as_executed(id.pid, parent, platforms.variables()) {
                self.processes.entry(id, parent, users);
                let directory = look::working_directory(id.pid);
                self.place(id, BootTime::now(), &exec, &directory, true);
            }
        }
        self.recovering = false;
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
