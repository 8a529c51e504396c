//! What runners' hooks say, and whether whoever says it may.

use buildtrail_proto::v1;
use tokio::sync::mpsc::Sender;
use tracing::warn;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    clock::BootTime,
    control::{Answer, Asked, IdentityToken, Moment},
    event::text::Notes,
    job::Membership,
    uplink::identity::{Checked, Claimed},
};

impl Pipeline {
    /// Answers a hook. Call it when everything that happened before the question has been processed.
    pub fn take_hook(&mut self, asked: Asked, now: BootTime) {
        let answer = self.judge(&asked, now);
        asked.answer(answer);
    }

    /// Tokens of jobs go there.
    pub fn prove_with(&mut self, claims: Option<Sender<Claimed>>) {
        self.claims = claims;
    }

    /// The collector has looked at a job's token.
    pub fn take_checked(&mut self, Checked { job_id, answer }: Checked, now: BootTime) {
        let job = if answer.verified {
            self.jobs.verify(&job_id)
        } else {
            self.jobs.membership(&job_id, None).map(|membership| membership.job)
        };
        let Some(job) = job else { return };
        if answer.verified {
            self.processes.replace_job(&job);
        }
        let whole_job = Membership { job, step: None };
        let body = answer.result.unwrap_or_default();
        self.emit(now, Some(&whole_job), None, Notes::default(), Body::IdentityVerified(body));
    }

    fn prove(&self, membership: &Membership, token: IdentityToken) {
        let claimed = Claimed { job: membership.job.as_ref().clone(), token };
        if self.claims.as_ref().is_none_or(|claims| claims.try_send(claimed).is_err()) {
            warn!(job_id = membership.job.job_id, "no collector can check the job's identity");
        }
    }

    fn judge(&mut self, asked: &Asked, now: BootTime) -> Answer {
        let refused = |why: &str| Answer::Refused(why.to_owned());
        let Some(process) = self.processes.live(asked.pid) else {
            return refused("the agent does not know the process that asks");
        };
        let Some(membership) = process.membership.clone() else {
            return match process.creator_runner() {
                // The runner's own child: what it says about a job is for the first step to prove.
                Some(_) => Answer::Job(String::new()),
                None => refused("the process that asks was not started by a runner"),
            };
        };
        let job_id = membership.job.job_id.clone();
        if asked.moment == Moment::Completed && !self.jobs.tell_end(&job_id, now) {
            return refused("this job is over");
        }
        if let Some(token) = asked.token.clone() {
            self.prove(&membership, token);
        }
        Answer::Job(job_id)
    }
}
