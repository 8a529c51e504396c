//! Which job and step a process works for.
//!
//! In: executions of processes that a runner created and that have no job yet. Out: a [`Membership`], which the process's
//! descendants inherit through the process table, and the jobs' beginnings and ends. Must never name a job from what the
//! job's own processes say: a process that has a membership is never asked again.

mod lifecycle;
pub mod platform;
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

use crate::{clock::BootTime, process::ProcessId, sensor::records::Exec};

pub use lifecycle::EndedJob;
use lifecycle::{Lifecycle, Recent};
use platform::{
    Claim, Place, Platform, StepClaim,
    rule::{Ends, StepOf},
};
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

/// What became of a runner's child.
#[derive(Debug)]
pub struct Assigned {
    /// What it works for.
    pub membership: Membership,
    /// The job begins with it, or goes on after it was taken for ended.
    pub begins: Option<v1::JobStarted>,
}

/// Who is asked about a job.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The runner.
    pub runner: ProcessId,
    /// What the runner itself created.
    pub root: ProcessId,
    /// What was executed.
    pub exec: &'a Exec,
    /// Where.
    pub place: Place<'a>,
    /// When.
    pub time: BootTime,
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
    platform: Rc<Platform>,
    /// Which of the platform's ways to name a job.
    rule: usize,
    life: Lifecycle,
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
    recent: Recent,
}

impl JobTracker {
    /// No jobs yet.
    #[must_use]
    pub fn new(host: HostIdentity) -> Self {
        Self { host, jobs: HashMap::new(), over: HashMap::new(), recent: Recent::default() }
    }

    /// Names a runner's child, or a process of its tree, by what the runner gave it. `None` when that is no job's process.
    pub fn assign(&mut self, platform: &Rc<Platform>, asked: Asked<'_>) -> Option<Assigned> {
        let claim = platform.claim(asked.exec, asked.place)?;
        let id = self.job_id(&platform.rule.name, asked.runner, &claim);
        let mut begins = None;
        if !self.jobs.contains_key(&id) {
            self.displace(asked.runner, &claim.slot, &id, asked.time);
            let again = self.over.remove(&id).or_else(|| self.recent.take(&id));
            begins = Some(v1::JobStarted { continued: again.is_some(), ..v1::JobStarted::default() });
            let state = again.unwrap_or_else(|| begin(id.clone(), platform, &claim, asked));
            self.jobs.insert(id.clone(), state);
        }
        let state = self.jobs.get_mut(&id)?;
        learn(&mut state.job, &claim.job);
        Self::begin_root(state, asked.root);
        let step = claim.step.map(|step| step_of(&mut state.steps, step));
        Some(Assigned { membership: Membership { job: Rc::clone(&state.job), step }, begins })
    }

    /// The step that a child of the process begins that runs the whole job.
    pub fn step_below(&mut self, job_id: &str, exec: &Exec, place: Place<'_>) -> Option<Membership> {
        let state = self.jobs.get_mut(job_id)?;
        let claim = state.platform.rule.job.get(state.rule)?.grandchild_step(exec, place)?;
        let step = step_of(&mut state.steps, claim);
        Some(Membership { job: Rc::clone(&state.job), step: Some(step) })
    }

    /// Whether steps of this job are begun by children of the process that runs the whole job.
    #[must_use]
    pub fn has_steps_below(&self, job_id: &str) -> bool {
        let rule = self.jobs.get(job_id).and_then(|state| state.platform.rule.job.get(state.rule));
        rule.is_some_and(|rule| rule.step.of == StepOf::Grandchild)
    }

    /// The only job of a runner process that runs one job in its life.
    #[must_use]
    pub fn only_job_of(&self, runner: ProcessId) -> Option<Membership> {
        let mut jobs = self.jobs.values().filter(|state| state.runner == runner);
        match (jobs.next(), jobs.next()) {
            (Some(state), None) if state.life.ends == Ends::WithRunner => {
                Some(Membership { job: Rc::clone(&state.job), step: None })
            }
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
                rule: state.rule,
                slot: state.life.slot.clone(),
                roots: state.life.roots.iter().map(|root| (*root).into()).collect(),
            }
        };
        self.jobs.values().map(saved(false)).chain(self.over.values().map(saved(true))).collect()
    }

    /// The CI provider agrees with what is known of a job. Its identity from now on; `None` when it is forgotten.
    pub fn verify(&mut self, job_id: &str) -> Option<Rc<v1::Job>> {
        let state = self.get_mut(job_id)?;
        Rc::make_mut(&mut state.job).set_assurance(v1::Assurance::Verified);
        Some(Rc::clone(&state.job))
    }

    /// Goes on with a job of an earlier agent. `lives` says which of its runner's children have not ended meanwhile.
    pub fn restore(&mut self, platform: Rc<Platform>, saved: SavedJob, lives: impl Fn(ProcessId) -> bool) {
        let steps = saved.steps.into_iter().map(|step| (step.id.clone(), Rc::new(step))).collect();
        let ends = platform.rule.job.get(saved.rule).map(|rule| rule.ends).unwrap_or_default();
        let mut life = Lifecycle::new(ends, saved.slot);
        life.roots = saved.roots.into_iter().map(ProcessId::from).collect();
        let state = JobState {
            job: Rc::new(saved.job),
            started: BootTime(saved.started_boot_time_ns),
            summary: saved.summary,
            runner: saved.runner.into(),
            platform,
            rule: saved.rule,
            life,
            steps,
            names: HashMap::new(),
            reported_variables: HashSet::new(),
        };
        let ended: Vec<ProcessId> = state.life.roots.iter().copied().filter(|root| !lives(*root)).collect();
        let jobs = if saved.over { &mut self.over } else { &mut self.jobs };
        jobs.insert(state.job.job_id.clone(), state);
        for root in ended {
            self.root_ended(root, BootTime::now());
        }
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
        let forgotten: Vec<(String, JobState)> = self.over.extract_if(|id, _| !has_processes(id)).collect();
        let remember = |(id, state): (String, JobState)| {
            self.recent.add(state);
            id
        };
        forgotten.into_iter().map(remember).collect()
    }

    /// What an execution inside a job says about it that is known to be otherwise.
    #[must_use]
    pub fn contradictions(&self, known: &v1::Job, exec: &Exec) -> Vec<v1::IdentityClaim> {
        let state = self.jobs.get(&known.job_id).or_else(|| self.over.get(&known.job_id));
        let claimed = state.and_then(|state| state.platform.claimed_job(exec));
        claimed.map(|claimed| contradictions(known, &claimed)).unwrap_or_default()
    }

    /// What a runner says about this job is in doubt, or was not seen when it was said.
    pub fn assert_only(&mut self, job_id: &str) -> Option<Rc<v1::Job>> {
        let state = self.jobs.get_mut(job_id)?;
        let assurance = v1::Assurance::Asserted.into();
        state.job = Rc::new(v1::Job { assurance, ..state.job.as_ref().clone() });
        Some(Rc::clone(&state.job))
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
    fn job_id(&self, platform: &str, runner: ProcessId, claim: &Claim<'_>) -> String {
        let mut digest = Sha256::new();
        let runner = format!("{} {}", runner.pid, runner.start.0 / crate::process::COARSE_START);
        let job = &claim.job;
        for part in [
            "buildtrail job v1",
            self.host.host_id.as_str(),
            self.host.boot_id.as_str(),
            &runner,
            platform,
            &job.repository,
            &job.run_id,
            &job.run_attempt,
            &job.name,
            &claim.distinct,
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

/// Takes what a later process of the runner's says and earlier ones did not, such as the commit.
fn learn(known: &mut Rc<v1::Job>, said: &v1::Job) {
    let mut job = known.as_ref().clone();
    let mut fields = [
        (&mut job.actor, &said.actor),
        (&mut job.r#ref, &said.r#ref),
        (&mut job.sha, &said.sha),
        (&mut job.trigger, &said.trigger),
        (&mut job.url, &said.url),
    ];
    let mut learned = false;
    for (field, said) in fields.iter_mut().filter(|(field, said)| field.is_empty() && !said.is_empty()) {
        said.clone_into(field);
        learned = true;
    }
    if learned {
        *known = Rc::new(job);
    }
}

fn begin(id: String, platform: &Rc<Platform>, claim: &Claim<'_>, asked: Asked<'_>) -> JobState {
    let job = v1::Job {
        job_id: id,
        platform: platform.rule.name.clone(),
        assurance: v1::Assurance::Observed.into(),
        ..claim.job.clone()
    };
    JobState {
        job: Rc::new(job),
        started: asked.time,
        summary: v1::JobFinished::default(),
        runner: asked.runner,
        platform: Rc::clone(platform),
        rule: claim.index,
        life: Lifecycle::new(claim.rule.ends, claim.slot.clone()),
        steps: HashMap::new(),
        names: HashMap::new(),
        reported_variables: HashSet::new(),
    }
}

/// The step with this id; a step without one is always a new one, and its number is its id.
fn step_of(steps: &mut HashMap<String, Rc<v1::Step>>, claim: StepClaim) -> Rc<v1::Step> {
    let index = u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(1);
    let StepClaim { id, name, path } = claim;
    let id = if id.is_empty() { index.to_string() } else { id };
    let step = steps.entry(id.clone()).or_insert_with(|| Rc::new(v1::Step { id, index, name, path }));
    Rc::clone(step)
}

#[cfg(test)]
mod tests;
