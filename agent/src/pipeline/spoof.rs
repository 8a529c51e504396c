//! Attempts to be another job, or a runner. They are told, and change nothing.

use std::collections::{HashMap, HashSet};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    catalog::runners,
    clock::BootTime,
    event::text::{Notes, lossless},
    job::{
        Membership,
        trust::{Candidate, Standing, Trust},
    },
    process::{Process, ProcessId},
    sensor::records::{Exec, Users},
};

/// Attempts of one job that are told.
const MAX_TOLD: usize = 64;

/// Jobs whose attempts are remembered: some are told of jobs that were forgotten long ago.
const MAX_JOBS: usize = 4096;

/// An attempt: its kind, and what is the same when it is repeated.
type Attempt = (v1::SpoofKind, String);

/// Who is believed to be a runner, and which attempts were told.
#[derive(Debug, Default)]
pub(super) struct Identities {
    trust: Trust,
    doubtful: HashSet<ProcessId>,
    told: HashMap<String, HashSet<Attempt>>,
}

impl Identities {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, ..Self::default() }
    }

    /// Whether a process outside any job that has the looks of a runner is one.
    pub(super) fn admit(&mut self, id: ProcessId, users: Users, written_by_job: bool) -> bool {
        let candidate = Candidate { written_by_job, ..Candidate::look(id.pid, users, false) };
        let standing = self.trust.standing(&candidate);
        if standing == Standing::Doubtful {
            self.doubtful.insert(id);
        }
        standing != Standing::Refused
    }

    pub(super) fn forget_runner(&mut self, runner: ProcessId) {
        self.doubtful.remove(&runner);
    }

    pub(super) fn forget_job(&mut self, job: &str) {
        self.told.remove(job);
    }

    /// `None`: it was told, or there were too many. The flag says that it is the last.
    fn is_news(&mut self, job: &str, attempt: Attempt) -> Option<bool> {
        if self.told.len() >= MAX_JOBS && !self.told.contains_key(job) {
            self.told.clear();
        }
        let told = self.told.entry(job.to_owned()).or_default();
        (told.len() < MAX_TOLD && told.insert(attempt)).then_some(told.len() == MAX_TOLD)
    }
}

impl Pipeline {
    /// Whether a process outside any job that looks like a runner is one. A program that a job wrote is told on that job.
    pub(super) fn admit_runner(&mut self, process: &Process, platform: &str, time: BootTime) -> bool {
        let writer = self.heirlooms.writer_of_program(process.id.pid);
        if !self.identities.admit(process.id, process.users, writer.is_some()) {
            return false;
        }
        self.heirlooms.add_runner(&process.executable, platform);
        let kind = v1::SpoofKind::RunnerFiles;
        if let Some(job) = writer
            && let Some(last) = self.identities.is_news(&job.job_id, (kind, lossless(&process.executable)))
        {
            let mut notes = Notes::default();
            let (path, platform) = (notes.text(&process.executable), platform.to_owned());
            let body = v1::IdentitySpoof { path, platform, last, ..spoof(kind) };
            let writer = Membership { job, step: None };
            self.emit(time, Some(&writer), None, notes, Body::IdentitySpoof(body));
        }
        true
    }

    /// A new job's identity is only asserted where its runner is doubted, or was not watched when it named the job.
    pub(super) fn question(&mut self, membership: Membership, runner: ProcessId) -> Membership {
        if !self.recovering && !self.identities.doubtful.contains(&runner) {
            return membership;
        }
        match self.jobs.assert_only(&membership.job.job_id) {
            Some(job) => Membership { job, ..membership },
            None => membership,
        }
    }

    /// Looks at what a job's process executed.
    pub(super) fn look_for_spoof(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        exec: &Exec,
    ) {
        let claims = self.jobs.contradictions(&membership.job, exec);
        if !claims.is_empty() {
            let key = claims.iter().flat_map(|claim| [&claim.name, "=", &claim.claimed, "\n"]).collect();
            let body = v1::IdentitySpoof { claims, ..spoof(v1::SpoofKind::IdentityVariables) };
            self.tell_spoof(process, membership, time, Notes::default(), key, body);
        }
        let mut notes = Notes::default();
        let path = notes.text(&process.executable);
        if let Some(platform) = self.recognise(process, exec) {
            let platform = platform.rule.name.clone();
            let body =
                v1::IdentitySpoof { path: path.clone(), platform, ..spoof(v1::SpoofKind::RunnerProgram) };
            self.tell_spoof(process, membership, time, notes, path, body);
        } else if let Some(platform) = runners::registering_command(&exec.arguments) {
            let platform = platform.to_owned();
            let body =
                v1::IdentitySpoof { path: path.clone(), platform, ..spoof(v1::SpoofKind::RunnerCommand) };
            self.tell_spoof(process, membership, time, notes, path, body);
        }
    }

    /// Tells an attempt unless it is a repetition.
    pub(super) fn tell_spoof(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        notes: Notes,
        key: String,
        mut body: v1::IdentitySpoof,
    ) {
        let Some(last) = self.identities.is_news(&membership.job.job_id, (body.kind(), key)) else { return };
        body.last = last;
        self.emit(time, Some(membership), Some(process), notes, Body::IdentitySpoof(body));
    }
}

/// An attempt of this kind.
pub(super) fn spoof(kind: v1::SpoofKind) -> v1::IdentitySpoof {
    v1::IdentitySpoof { kind: kind.into(), ..v1::IdentitySpoof::default() }
}
