//! What is left of a job when its runner has ended: processes that go on, which stay the job's.

use std::{collections::HashSet, rc::Rc};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{clock::BootTime, event::text::Notes, job::Membership, process::Process};

/// Processes of one job that are told one by one; `JobFinished.processes_left` counts all.
const MAX_TOLD: usize = 64;
/// How soon the jobs that are over are looked through again, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

impl Pipeline {
    /// The job is over: tells what it left behind, then that it has finished.
    pub(super) fn close_job(&mut self, job: Rc<v1::Job>, mut summary: v1::JobFinished, time: BootTime) {
        self.relocations.forget(&job.job_id);
        self.wishes.ended_jobs.push(job.job_id.clone());
        let membership = Membership { job, step: None };
        let mut left = self.processes_of(&membership.job.job_id);
        left.sort_by_key(|process| process.id);
        summary.processes_left = left.len() as u64;
        for process in left.into_iter().take(MAX_TOLD) {
            let body = v1::Escape { kind: v1::EscapeKind::OutlivedJob.into(), ..v1::Escape::default() };
            let own = process.membership.clone();
            self.emit(time, own.as_ref(), Some(&process), Notes::default(), Body::Escape(body));
        }
        if summary.processes_left == 0 {
            self.heritage.end_job(&membership.job.job_id);
            self.containers.end_job(&membership.job.job_id);
        }
        summary.credentials_left = self.settle_heirlooms(&membership, time);
        self.emit(time, Some(&membership), None, Notes::default(), Body::JobFinished(summary));
    }

    fn processes_of(&self, job_id: &str) -> Vec<Process> {
        let of_job = |process: &&Process| {
            process.membership.as_ref().is_some_and(|membership| membership.job.job_id == job_id)
        };
        self.processes.all_live().filter(of_job).cloned().collect()
    }

    /// Forgets jobs that are over and of which nothing runs any more.
    pub(super) fn forget_jobs(&mut self, now: BootTime) {
        if self.jobs.over() == 0 || now < self.next_farewell {
            return;
        }
        self.next_farewell = BootTime(now.0 + PATIENCE);
        let live: HashSet<&str> = self
            .processes
            .all_live()
            .filter_map(|process| Some(process.membership.as_ref()?.job.job_id.as_str()))
            .collect();
        for gone in self.jobs.forget_over(|job| live.contains(job)) {
            self.heritage.end_job(&gone);
            self.relocations.forget(&gone);
            self.containers.end_job(&gone);
            self.identities.forget_job(&gone);
            self.heirlooms.forget_job(&gone);
            self.wishes.ended_jobs.push(gone);
        }
    }
}
