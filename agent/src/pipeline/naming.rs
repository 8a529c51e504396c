//! Which job and step an execution belongs to, before anyone has said so.

use std::{collections::HashMap, rc::Rc};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    clock::BootTime,
    event::text::Notes,
    job::{
        Asked, Assigned, Membership,
        platform::{Candidate, Place, Platform, Platforms, rule::NamedBy},
        trust,
    },
    process::{Process, ProcessId, Role, look},
    sensor::records::{Exec, Users},
};

/// Executions that are kept for one child of a runner until it has a name.
const MAX_UNNAMED: usize = 32;
/// Children of runners for which executions are kept.
const MAX_ROOTS: usize = 256;

/// An execution whose job is not known yet.
#[derive(Debug)]
struct Unnamed {
    process: ProcessId,
    time: BootTime,
    exec: Exec,
    directory: Vec<u8>,
}

/// The runners that live, and what their children executed before anyone named them.
#[derive(Debug, Default)]
pub(super) struct Naming {
    runners: HashMap<ProcessId, Rc<Platform>>,
    unnamed: HashMap<ProcessId, Vec<Unnamed>>,
}

impl Naming {
    pub(super) fn platform_of(&self, runner: ProcessId) -> Option<Rc<Platform>> {
        self.runners.get(&runner).map(Rc::clone)
    }

    pub(super) fn add_runner(&mut self, runner: ProcessId, platform: Rc<Platform>) {
        self.runners.insert(runner, platform);
    }

    /// Forgets the runners and their children that nobody knows any more.
    pub(super) fn sweep(&mut self, known: impl Fn(ProcessId) -> bool) {
        self.runners.retain(|runner, _| known(*runner));
        self.unnamed.retain(|root, _| known(*root));
    }

    fn keep(&mut self, root: ProcessId, unnamed: Unnamed) {
        if self.unnamed.len() >= MAX_ROOTS && !self.unnamed.contains_key(&root) {
            return;
        }
        let kept = self.unnamed.entry(root).or_default();
        if kept.len() < MAX_UNNAMED {
            kept.push(unnamed);
        }
    }
}

/// The platform whose runner a process looks like that ran before the agent did.
pub(super) fn recognise_running(platforms: &Platforms, process: &Process) -> Option<Rc<Platform>> {
    let exec = look::as_executed(process.id.pid, process.parent_pid, platforms.variables())?;
    recognise(platforms, process, &exec)
}

/// The platform whose runner this process looks like.
fn recognise(platforms: &Platforms, process: &Process, exec: &Exec) -> Option<Rc<Platform>> {
    platforms.recognise(&Candidate {
        executable: &process.executable,
        arguments: &exec.arguments,
        variable: &|name| exec.value(name).map(<[u8]>::to_vec),
        unit: &|| unit(process.id.pid),
    })
}

fn unit(pid: u32) -> Option<String> {
    trust::system_unit(&look::control_groups(pid)).map(str::to_owned)
}

impl Pipeline {
    /// Finds out what a process without a job is: a runner, a step that a runner starts, or neither.
    pub(super) fn place(
        &mut self,
        id: ProcessId,
        time: BootTime,
        exec: &Exec,
        directory: &[u8],
        first: bool,
    ) {
        let Some(process) = self.processes.get(id) else { return };
        let Role::RunnerChild { runner, root } = process.role else {
            self.place_runner(id, time, exec);
            return;
        };
        let users = process.users;
        let Some(platform) = self.naming.platform_of(runner) else { return };
        let runner_directory = look::working_directory(runner.pid);
        let place = Place { directory, runner_directory: &runner_directory };
        let asked = Asked { runner, root, exec, place, time };
        if let Some((assigned, of)) = self.assign(&platform, asked, id, first) {
            self.name(asked, id, users, assigned, of);
        } else if let Some(membership) = self.jobs.only_job_of(runner) {
            self.heritage.name(id, &membership);
            self.processes.set_membership(id, Some(membership));
        } else {
            let (exec, directory) = (exec.clone(), directory.to_vec());
            self.naming.keep(root, Unnamed { process: id, time, exec, directory });
        }
    }

    /// Asks the platform, if this process is one to be asked.
    fn assign(
        &mut self,
        platform: &Rc<Platform>,
        asked: Asked<'_>,
        id: ProcessId,
        first: bool,
    ) -> Option<(Assigned, NamedBy)> {
        let claim = platform.claim(asked.exec, asked.place)?;
        let of = claim.rule.named_by;
        // What comes from a child that the runner did not name may be anyone's: it is not asked.
        let may_say = of == NamedBy::FirstToShow || (id == asked.root && first);
        if !may_say {
            return None;
        }
        Some((self.jobs.assign(platform, asked)?, of))
    }

    fn name(&mut self, asked: Asked<'_>, id: ProcessId, users: Users, assigned: Assigned, of: NamedBy) {
        let Assigned { mut membership, begins } = assigned;
        if let Some(mut begins) = begins {
            membership = self.question(membership, asked.runner);
            begins.already_running = self.recovering;
            let whole_job = Membership { job: Rc::clone(&membership.job), step: None };
            self.emit(asked.time, Some(&whole_job), None, Notes::default(), Body::JobStarted(begins));
        }
        let named = if of == NamedBy::FirstToShow { asked.root } else { id };
        self.heritage.name(named, &membership);
        self.processes.entry(id, asked.exec.parent_pid, users).membership = Some(membership.clone());
        if of == NamedBy::FirstToShow {
            self.processes.name_tree(asked.root, &membership);
            self.report_unnamed(asked.root, &membership);
            if id != asked.root {
                self.place_step(id, asked.exec, asked.place.directory);
            }
        }
    }

    /// What the tree of a runner's child executed before it had a name.
    fn report_unnamed(&mut self, root: ProcessId, membership: &Membership) {
        for unnamed in self.naming.unnamed.remove(&root).unwrap_or_default() {
            let Some(process) = self.processes.get(unnamed.process).cloned() else { continue };
            self.report_exec(&process, membership, unnamed.time, &unnamed.exec, &unnamed.directory);
        }
    }

    /// A child of the process that runs a whole job begins a step.
    pub(super) fn place_step(&mut self, id: ProcessId, exec: &Exec, directory: &[u8]) {
        let Some(process) = self.processes.get(id) else { return };
        let Some(Membership { job, step: None }) = process.membership.clone() else { return };
        if !self.jobs.has_steps_below(&job.job_id) {
            return;
        }
        let creator = process.creator.and_then(|creator| self.processes.get(creator));
        let below_root = creator.is_some_and(
            |creator| matches!(creator.role, Role::RunnerChild { root, .. } if root == creator.id),
        );
        if below_root
            && let Some(membership) =
                self.jobs.step_below(&job.job_id, exec, Place { directory, runner_directory: b"" })
        {
            self.heritage.name(id, &membership);
            self.processes.set_membership(id, Some(membership));
        }
    }

    /// The platform whose runner this process of a job looks like.
    pub(super) fn recognise(&self, process: &Process, exec: &Exec) -> Option<Rc<Platform>> {
        recognise(&self.platforms, process, exec)
    }

    /// A process outside all jobs executes a program: perhaps a runner's.
    fn place_runner(&mut self, id: ProcessId, time: BootTime, exec: &Exec) {
        let Some(process) = self.processes.get(id).cloned() else { return };
        let users = process.users;
        let platform = recognise(&self.platforms, &process, exec);
        let platform = platform.filter(|platform| self.admit_runner(&process, &platform.rule.name, time));
        let role = if platform.is_some() { Role::Runner } else { Role::Other };
        self.processes.entry(id, exec.parent_pid, users).role = role;
        if let Some(platform) = platform {
            self.wishes.runners.push(id);
            self.naming.add_runner(id, platform);
        }
    }

    /// A runner that makes itself a daemon goes on in a child that executes nothing.
    pub(super) fn hand_on_runner(&mut self, ended: ProcessId) {
        let Some(platform) = self.naming.platform_of(ended) else { return };
        let is_twin = |process: &Process| {
            let child = matches!(process.role, Role::RunnerChild { runner, .. } if runner == ended);
            child && !process.executed && process.membership.is_none()
        };
        let twins: Vec<Process> = self.processes.all_live().filter(|twin| is_twin(twin)).cloned().collect();
        for twin in twins {
            self.processes.entry(twin.id, twin.parent_pid, twin.users).role = Role::Runner;
            self.wishes.runners.push(twin.id);
            self.naming.add_runner(twin.id, Rc::clone(&platform));
        }
    }
}
