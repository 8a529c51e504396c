//! Which job and step a process works for.
//!
//! In: executions of processes that a runner created and that have no job yet. Out: a [`Membership`], which the process's
//! descendants inherit through the process table, and the jobs' beginnings and ends. Must never name a job from what the
//! job's own processes say: a process that has a membership is never asked again.

mod github;
mod runner;
pub mod saved;
pub mod trust;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
};

use buildtrail_evidence::id::{BootId, HostId};
use buildtrail_proto::v1;
use sha2::{Digest as _, Sha256};

use crate::{clock::BootTime, config::Platform, process::ProcessId, sensor::records::Exec};

pub use github::IDENTITY_VARIABLES;
pub use runner::RunnerPrograms;
use saved::SavedJob;

/// Names and addresses that one job may teach the agent: more than a build needs, and a bound against a hostile one.
const MAX_DNS_NAMES: usize = 4096;

/// The job and step that a process works for.
#[derive(Clone, Debug, PartialEq)]
pub struct Membership {
    /// The job.
    pub job: Rc<v1::Job>,
    /// `None`: the runner's own work around the steps.
    pub step: Option<Rc<v1::Step>>,
}

#[cfg(test)]
impl Membership {
    /// A membership that is only equal to others of the same name.
    #[must_use]
    pub fn for_test(job_id: &str) -> Self {
        Self { job: Rc::new(v1::Job { job_id: job_id.to_owned(), ..v1::Job::default() }), step: None }
    }
}

/// What a runner's child said about the job, before it has an id.
struct Claim {
    job: v1::Job,
    /// Tells two jobs of one runner process apart that are otherwise alike (a matrix).
    workspace: String,
    step: Option<String>,
}

/// A job that runs.
#[derive(Debug)]
pub struct JobState {
    /// Its identity.
    pub job: Rc<v1::Job>,
    /// When the agent saw it first.
    pub started: BootTime,
    /// What it did so far.
    pub summary: v1::JobFinished,
    runner: ProcessId,
    steps: HashMap<String, Rc<v1::Step>>,
    names: HashMap<IpAddr, Vec<String>>,
    reported_variables: HashSet<(Option<u32>, String)>,
}

impl JobState {
    /// Remembers that looking up `name` led to `address`.
    pub fn learn_name(&mut self, address: IpAddr, name: &str) {
        if self.names.len() >= MAX_DNS_NAMES && !self.names.contains_key(&address) {
            return;
        }
        let names = self.names.entry(address).or_default();
        if names.len() < 16 && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }

    /// Names that this job looked up and that led to `address`.
    #[must_use]
    pub fn names_of(&self, address: IpAddr) -> &[String] {
        self.names.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Of `names`, those not yet reported for this step.
    pub fn unreported_variables(&mut self, step: Option<&v1::Step>, names: Vec<String>) -> Vec<String> {
        let step = step.map(|step| step.index);
        names.into_iter().filter(|name| self.reported_variables.insert((step, name.clone()))).collect()
    }
}

/// Where the jobs' ids are rooted.
#[derive(Clone, Debug)]
pub struct HostIdentity {
    /// As in the events.
    pub host_id: HostId,
    /// The kernel's random boot id.
    pub boot_id: BootId,
}

/// All jobs that run on this host.
#[derive(Debug)]
pub struct JobTracker {
    host: HostIdentity,
    jobs: HashMap<String, JobState>,
    /// Those that are over, as long as one of their processes lives.
    over: HashMap<String, JobState>,
}

impl JobTracker {
    /// No jobs yet.
    #[must_use]
    pub fn new(host: HostIdentity) -> Self {
        Self { host, jobs: HashMap::new(), over: HashMap::new() }
    }

    /// Names a runner's child by what the runner gave it. `None` when that is no job's process. The flag tells that the
    /// job is new.
    pub fn assign(
        &mut self,
        platform: Platform,
        runner: ProcessId,
        exec: &Exec,
        time: BootTime,
    ) -> Option<(Membership, bool)> {
        let claim = match platform {
            Platform::GithubActions | Platform::Act => github::claim(platform, exec)?,
        };
        let id = self.job_id(runner, &claim);
        let new = !self.jobs.contains_key(&id);
        let state = self.jobs.entry(id.clone()).or_insert_with(|| JobState {
            job: Rc::new(v1::Job { job_id: id, ..claim.job }),
            started: time,
            summary: v1::JobFinished::default(),
            runner,
            steps: HashMap::new(),
            names: HashMap::new(),
            reported_variables: HashSet::new(),
        });
        let step = claim.step.map(|step| step_of(&mut state.steps, step));
        Some((Membership { job: Rc::clone(&state.job), step }, new))
    }

    /// The only job of a runner process that runs one job in its life.
    #[must_use]
    pub fn only_job_of(&self, runner: ProcessId) -> Option<Membership> {
        let mut jobs = self.jobs.values().filter(|state| state.runner == runner);
        match (jobs.next(), jobs.next()) {
            (Some(state), None) => Some(Membership { job: Rc::clone(&state.job), step: None }),
            _ => None,
        }
    }

    /// The jobs that run, for the agent that comes after this one.
    #[must_use]
    pub fn save(&self) -> Vec<SavedJob> {
        let saved = |over: bool| {
            move |state: &JobState| SavedJob {
                job: state.job.as_ref().clone(),
                runner: state.runner.into(),
                started_boot_time_ns: state.started.0,
                steps: state.steps.values().map(|step| step.as_ref().clone()).collect(),
                summary: state.summary,
                over,
            }
        };
        self.jobs.values().map(saved(false)).chain(self.over.values().map(saved(true))).collect()
    }

    /// Goes on with a job of an earlier agent.
    pub fn restore(&mut self, saved: SavedJob) {
        let jobs = if saved.over { &mut self.over } else { &mut self.jobs };
        let steps = saved.steps.into_iter().map(|step| (step.id.clone(), Rc::new(step))).collect();
        let state = JobState {
            job: Rc::new(saved.job),
            started: BootTime(saved.started_boot_time_ns),
            summary: saved.summary,
            runner: saved.runner.into(),
            steps,
            names: HashMap::new(),
            reported_variables: HashSet::new(),
        };
        jobs.insert(state.job.job_id.clone(), state);
    }

    /// A process's membership, as it was saved.
    #[must_use]
    pub fn membership(&self, job_id: &str, step: Option<&v1::Step>) -> Option<Membership> {
        let state = self.jobs.get(job_id).or_else(|| self.over.get(job_id))?;
        let step = step.and_then(|step| state.steps.get(&step.id)).map(Rc::clone);
        Some(Membership { job: Rc::clone(&state.job), step })
    }

    /// The state of a job that runs, or that is over and still has processes.
    pub fn get_mut(&mut self, job_id: &str) -> Option<&mut JobState> {
        self.jobs.get_mut(job_id).or_else(|| self.over.get_mut(job_id))
    }

    /// Whether the job's runner has ended.
    #[must_use]
    pub fn is_over(&self, job_id: &str) -> bool {
        !self.jobs.contains_key(job_id)
    }

    /// Jobs that are over and not forgotten.
    #[must_use]
    pub fn over(&self) -> usize {
        self.over.len()
    }

    /// Forgets the jobs that are over and have no process any more. Returns them.
    pub fn forget_over(&mut self, has_processes: impl Fn(&str) -> bool) -> Vec<String> {
        self.over.extract_if(|id, _| !has_processes(id)).map(|(id, _)| id).collect()
    }

    /// What an execution inside a job says about it that is known to be otherwise.
    #[must_use]
    pub fn contradictions(&self, known: &v1::Job, exec: &Exec) -> Vec<v1::IdentityClaim> {
        let Some(claim) = github::claim(Platform::GithubActions, exec) else { return Vec::new() };
        contradictions(known, &claim.job)
    }

    /// What a runner says about this job is in doubt, or was not seen when it was said.
    pub fn assert_only(&mut self, job_id: &str) -> Option<Rc<v1::Job>> {
        let state = self.jobs.get_mut(job_id)?;
        let assurance = v1::Assurance::Asserted.into();
        state.job = Rc::new(v1::Job { assurance, ..state.job.as_ref().clone() });
        Some(Rc::clone(&state.job))
    }

    /// Ends the jobs of a runner process that ended. They are remembered until [`Self::forget_over`].
    pub fn finish(&mut self, runner: ProcessId, time: BootTime) -> Vec<(Rc<v1::Job>, v1::JobFinished)> {
        let mut finished: Vec<JobState> =
            self.jobs.extract_if(|_, state| state.runner == runner).map(|(_, state)| state).collect();
        finished.sort_by_key(|state| state.started);
        let mut told = Vec::new();
        for state in finished {
            let summary = v1::JobFinished { duration_ns: time.since(state.started), ..state.summary };
            told.push((Rc::clone(&state.job), summary));
            self.over.insert(state.job.job_id.clone(), state);
        }
        told
    }

    /// The boot that the jobs run in.
    #[must_use]
    pub fn boot_id(&self) -> &BootId {
        &self.host.boot_id
    }

    /// Jobs that run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    /// See `Job.job_id` in event.proto. The runner's start is taken in hundredths of a second, which /proc also knows.
    fn job_id(&self, runner: ProcessId, claim: &Claim) -> String {
        let mut digest = Sha256::new();
        let runner = format!("{} {}", runner.pid, runner.start.0 / crate::process::COARSE_START);
        let job = &claim.job;
        for part in [
            "buildtrail job v1",
            self.host.host_id.as_str(),
            self.host.boot_id.as_str(),
            &runner,
            &job.platform,
            &job.repository,
            &job.run_id,
            &job.run_attempt,
            &job.name,
            &claim.workspace,
        ] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        hex::encode(&digest.finalize()[..16])
    }
}

/// Where both say something, and not the same.
fn contradictions(known: &v1::Job, claimed: &v1::Job) -> Vec<v1::IdentityClaim> {
    type Field = (&'static str, fn(&v1::Job) -> &String);
    const FIELDS: [Field; 9] = [
        ("server", |job| &job.server),
        ("repository", |job| &job.repository),
        ("workflow", |job| &job.workflow),
        ("run_id", |job| &job.run_id),
        ("run_attempt", |job| &job.run_attempt),
        ("name", |job| &job.name),
        ("ref", |job| &job.r#ref),
        ("sha", |job| &job.sha),
        ("runner_name", |job| &job.runner_name),
    ];
    let differ = FIELDS.into_iter().filter_map(|(name, field)| {
        let (known, claimed) = (field(known), field(claimed));
        let differs = !known.is_empty() && !claimed.is_empty() && known != claimed;
        differs.then(|| v1::IdentityClaim {
            name: name.to_owned(),
            claimed: claimed.clone(),
            known: known.clone(),
        })
    });
    differ.collect()
}

fn step_of(steps: &mut HashMap<String, Rc<v1::Step>>, id: String) -> Rc<v1::Step> {
    let index = u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(1);
    let step =
        steps.entry(id.clone()).or_insert_with(|| Rc::new(v1::Step { id, index, ..v1::Step::default() }));
    Rc::clone(step)
}

#[cfg(test)]
mod tests;
