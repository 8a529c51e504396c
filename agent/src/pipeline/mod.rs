//! From what the sensors saw to audit events, in one thread.
//!
//! In: batches of records and file events, in order. Out: events into the [`Output`]. Owns the process table and the
//! jobs. Must never wait, must never give an event to a job that its lineage does not lead to, and reports outside jobs
//! only what touches a secret.

mod afterlife;
mod connections;
mod containers;
mod delegation;
mod health;
mod heirlooms;
mod hooks;
mod memory;
mod naming;
mod network;
mod relocation;
mod resume;
mod rights;
mod spoof;

use std::{os::unix::ffi::OsStrExt as _, rc::Rc, time::Duration};

use buildtrail_agent_abi::{Counters, Hook};
use buildtrail_proto::{timestamp_from_unix_nanos, v1};
use v1::audit_event::Body;

use crate::{
    catalog::{Entry, commands},
    clock::BootTime,
    container::Containers,
    event::{
        self,
        access::{Access, AccessMerger},
        dns::DnsTracker,
        stream::DnsStreams,
        text::Notes,
    },
    job::{
        EndedJob, HostIdentity, JobTracker, Membership,
        platform::{self, Platforms},
        saved::Saved,
        trust::Trust,
    },
    output::Output,
    process::{self, Process, ProcessId, ProcessTable, Role},
    sensor::{
        Batch, SensorError, Wishes,
        coverage::CoverageReport,
        files::{FileEvent, Who},
        records::{Exec, Record, Users, What},
    },
    uplink::identity::Claimed,
};
use connections::Connections;
use health::Health;
use heirlooms::Heirlooms;
use memory::Reached;
use naming::Naming;
use network::{Destination, Family, Seen, ServicePath};
use relocation::Relocations;
use resume::Heritage;
use spoof::Identities;

/// Time in which what a job did can still come out of the kernel after its runner ended, in nanoseconds.
const JOB_END_GRACE: u64 = 250_000_000;
/// How soon something that waits for its completion is looked at again.
const SHORT_PATIENCE: Duration = Duration::from_millis(25);
/// While jobs run: whether something of them still runs, and what they write, is looked at without anything that wakes
/// the agent.
const JOB_PATIENCE: Duration = Duration::from_millis(250);
/// How long the pipeline can be left alone when nothing waits.
const LONG_PATIENCE: Duration = Duration::from_secs(5);

/// Reads what each hook emitted and lost since load.
pub type ReadCounters<'a> = &'a dyn Fn() -> Result<Vec<(Hook, Counters)>, SensorError>;

/// By what jobs are known.
#[derive(Debug)]
pub struct Settings {
    /// CI platforms.
    pub platforms: Platforms,
    /// Which runners are believed.
    pub trust: Trust,
    /// After how long a job is over of which nothing runs, where its runner goes on.
    pub job_idle: Duration,
}

/// The pipeline's state.
pub struct Pipeline {
    processes: ProcessTable,
    jobs: JobTracker,
    platforms: Platforms,
    naming: Naming,
    job_idle: Duration,
    accesses: AccessMerger,
    lookups: DnsTracker,
    destinations: Seen<Destination>,
    services: Seen<ServicePath>,
    hand_overs: Seen<Vec<u8>>,
    families: Seen<Family>,
    connections: Connections,
    containers: Containers,
    streams: DnsStreams,
    reached: Reached,
    relocations: Relocations,
    wishes: Wishes,
    heritage: Heritage,
    identities: Identities,
    heirlooms: Heirlooms,
    /// When jobs that are over are looked through again.
    next_farewell: BootTime,
    /// What is named now was running before any agent was.
    recovering: bool,
    health: Health,
    /// Where tokens go; absent without a collector.
    claims: Option<tokio::sync::mpsc::Sender<Claimed>>,
    output: Output,
}

impl Pipeline {
    /// A pipeline that knows the processes which run now. Call it when the sensors are attached.
    #[must_use]
    pub fn new(host: HostIdentity, settings: Settings, output: Output) -> Self {
        let Settings { platforms, trust, job_idle } = settings;
        let mut identities = Identities::new(trust);
        let mut heirlooms = Heirlooms::default();
        let mut processes = ProcessTable::default();
        let mut found = Vec::new();
        let mut naming = Naming::default();
        for mut process in process::snapshot() {
            let parent = processes.live(process.parent_pid);
            process.creator = parent.map(|parent| parent.id);
            process.role = match parent.map(|parent| (parent.role, parent.id)) {
                Some((Role::Runner, runner)) => Role::RunnerChild { runner, root: process.id },
                Some((role, _)) => role,
                None => Role::Other,
            };
            if process.role == Role::Other
                && let Some(platform) = naming::recognise_running(&platforms, &process)
                && identities.admit(process.id, process.users, false)
            {
                heirlooms.add_runner(&process.executable, &platform.rule.name);
                process.role = Role::Runner;
                found.push(process.id);
                naming.add_runner(process.id, platform);
            }
            processes.insert_snapshot(process);
        }
        Self {
            processes,
            jobs: JobTracker::new(host),
            platforms,
            naming,
            job_idle,
            accesses: AccessMerger::default(),
            lookups: DnsTracker::default(),
            destinations: Seen::default(),
            services: Seen::default(),
            hand_overs: Seen::default(),
            families: Seen::default(),
            connections: Connections::default(),
            containers: Containers::default(),
            streams: DnsStreams::default(),
            reached: Reached::default(),
            relocations: Relocations::default(),
            wishes: Wishes { runners: found, ..Wishes::default() },
            heritage: Heritage::default(),
            identities,
            heirlooms,
            next_farewell: BootTime(0),
            recovering: false,
            health: Health::default(),
            claims: None,
            output,
        }
    }

    /// Reports what the host can see.
    pub fn report_coverage(&mut self, coverage: &CoverageReport) {
        let release = nix::sys::utsname::uname();
        let release = release.as_ref().map(|names| names.release().as_bytes()).unwrap_or_default();
        let release = event::text::lossless(release);
        self.emit_about_host(Body::Coverage(coverage.to_event(&release)));
    }

    /// How long the pipeline can be left alone.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let waiting = !self.accesses.is_empty() || !self.lookups.is_empty() || self.jobs.has_ending();
        match (waiting, self.jobs.has_idle() || self.jobs.running() > 0) {
            (true, _) => SHORT_PATIENCE,
            (false, true) => JOB_PATIENCE,
            (false, false) => LONG_PATIENCE,
        }
    }

    /// Takes what the sensors saw.
    pub fn process(&mut self, batch: Batch) {
        self.health.count_lost_in_agent("decoder", batch.malformed);
        self.health.count_lost_in_agent("secret.file", batch.file_overflows);
        self.health.count_lost_in_agent("file.written", batch.act_overflows);
        self.health.count_lost_in_agent("an earlier build's records", batch.unreadable);
        self.report_gaps(&batch.gaps);
        for record in batch.records {
            self.take_record(record);
        }
        for event in batch.files {
            self.take_file_event(event);
        }
        for look in batch.looks {
            self.take_look(look);
        }
        for act in &batch.acts {
            self.take_act(act);
        }
    }

    /// What the sensors should do because of what was processed.
    pub fn take_wishes(&mut self) -> Wishes {
        std::mem::take(&mut self.wishes)
    }

    /// Does what is due at `now`. `counters` reads what the kernel side emitted and lost.
    pub fn tick(&mut self, now: BootTime, counters: ReadCounters<'_>) {
        for access in self.accesses.expired(now) {
            self.emit_access(&access);
        }
        for lookup in self.lookups.expired(now) {
            self.emit_lookup(lookup);
        }
        self.end_idle_jobs(now);
        self.end_jobs(|ended| now.since(ended) >= JOB_END_GRACE);
        self.processes.sweep(now);
        self.forget_jobs(now);
        self.naming.sweep(|id| self.processes.get(id).is_some());
        self.containers.sweep(now);
        self.report_health(counters, now);
    }

    /// Reports everything that still waits. Jobs whose runner has not ended stay open: they go on without the agent.
    ///
    /// Returns what the next agent has to know about them.
    pub fn finish(mut self, counters: ReadCounters<'_>) -> Saved {
        for access in self.accesses.flush(|_| true) {
            self.emit_access(&access);
        }
        for lookup in self.lookups.flush(|_| true) {
            self.emit_lookup(lookup);
        }
        self.end_jobs(|_| true);
        self.report_losses(counters, true);
        self.log_counters();
        self.emit_heartbeat();
        let saved = self.state();
        self.output.finish();
        saved
    }

    fn take_record(&mut self, record: Record) {
        match record.what {
            What::Fork { child, parent_pid } => {
                self.processes.fork(record.process, child, parent_pid, record.users);
                self.containers.fork(record.process, child);
            }
            What::Exec(exec) => self.take_exec(record.process, record.time, record.users, &exec),
            What::Exit { core_dumped } => {
                if core_dumped {
                    self.take_core_dump(record.process, record.time);
                }
                self.take_exit(record.process, record.time);
            }
            What::Memory(memory) => self.take_memory(record.process, record.time, memory),
            // The sensor has turned these into file events.
            What::File(_) => {}
            What::Connect(connect) => self.take_connect(record.process, record.time, &connect),
            What::Closed(closed) => self.take_closed(record.process, record.time, &closed),
            What::Socket(socket) => self.take_socket(record.process, record.time, socket),
            What::Payload(payload) => self.take_payload(&payload),
            What::Dns(message) => self.take_dns(record.process, record.time, &message),
            What::UnixConnect { peer_pid, path, by_send } => {
                self.take_unix_connect(record.process, record.time, (peer_pid, &path), by_send);
            }
        }
    }

    fn take_exec(&mut self, id: ProcessId, time: BootTime, users: Users, exec: &Exec) {
        let working_directory = process::look::working_directory(id.pid);
        let executable = process::look::executable(id.pid, exec, &working_directory);
        let process = self.processes.entry(id, exec.parent_pid, users);
        let first = !process.executed;
        process.executed |= !platform::is_helper(&executable);
        process.executable = Rc::from(executable);
        let before = std::mem::replace(&mut process.users, users);
        process.parent_pid = exec.parent_pid;
        let unplaced = process.membership.is_none();
        let by_runner = unplaced && process.creator_runner().is_some();
        self.enter_container(id, time, exec);
        match self.processes.get(id).map(|process| &process.membership) {
            Some(None) => self.place(id, time, exec, &working_directory, first),
            Some(Some(membership)) if first && membership.step.is_none() => {
                self.place_step(id, exec, &working_directory);
            }
            Some(Some(_)) | None => {}
        }
        let Some(process) = self.processes.get(id).cloned() else { return };
        self.containers.note_client(id, &process.executable, exec, by_runner);
        if let Some(membership) = process.membership.clone() {
            if unplaced {
                // Not the path: it can be one of another mount namespace.
                self.wishes.places.push(format!("/proc/{}/cwd", id.pid).into());
            }
            self.report_exec(&process, &membership, time, exec, &working_directory);
            self.look_for_spoof(&process, &membership, time, exec);
            if !unplaced {
                self.look_for_rights(&process, &membership, time, before);
            }
            self.look_for_contamination(&process, &membership, time, exec, &working_directory);
            self.look_for_delegation(&process, &membership, time, exec);
        }
    }

    fn report_exec(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        exec: &Exec,
        working_directory: &[u8],
    ) {
        let mut notes = Notes::default();
        let body = event::process_exec(exec, working_directory, &mut notes);
        let in_arguments = body.redacted_arguments > 0;
        let variables = body.credential_variables.clone();
        self.summarise(membership, |summary| summary.processes += 1);
        self.emit(time, Some(membership), Some(process), notes, Body::ProcessExec(body));

        let step = membership.step.as_deref();
        self.take_relocations(&membership.job.job_id, time, exec, working_directory);
        let new = self
            .jobs
            .get_mut(&membership.job.job_id)
            .map(|state| state.unreported_variables(step, variables))
            .unwrap_or_default();
        if !new.is_empty() {
            self.emit_credential(time, membership, process, event::credential_environment(new));
        }
        if let Some(entry) = commands::credential_command(&exec.arguments) {
            let credential = event::credential_use(v1::CredentialKind::Command, entry, String::new());
            self.emit_credential(time, membership, process, credential);
        }
        if in_arguments {
            let entry = Entry { name: "credential in an argument".into(), family: "argument".into() };
            let credential = event::credential_use(v1::CredentialKind::Argument, entry, String::new());
            self.emit_credential(time, membership, process, credential);
        }
    }

    fn take_exit(&mut self, id: ProcessId, time: BootTime) {
        self.destinations.forget(id);
        self.services.forget(id);
        self.hand_overs.forget(id);
        self.families.forget(id);
        self.reached.forget(id);
        self.containers.exit(id, time);
        if let Some((id, role, works)) = self
            .processes
            .exit(id, time)
            .map(|process| (process.id, process.role, process.membership.is_some()))
        {
            match role {
                Role::Runner => {
                    self.hand_on_runner(id);
                    self.containers.end_runner(id);
                    self.jobs.runner_ended(id, time);
                    self.identities.forget_runner(id);
                }
                Role::RunnerChild { root, .. } if root == id => self.jobs.root_ended(id, time),
                Role::RunnerChild { .. } | Role::Other => {}
            }
            if role != Role::Other || works {
                self.wishes.ended.push(id);
            }
        }
    }

    fn take_file_event(&mut self, event: FileEvent) {
        let id = self.find(event.process);
        if event.in_jobs_only && self.processes.get(id).is_none_or(|process| process.membership.is_none()) {
            // Outside jobs neither a name nor a job's word makes a secret.
            return;
        }
        if let Some(access) = self.accesses.add(id, event) {
            self.emit_access(&access);
        }
    }

    /// The process that a sensor means.
    fn find(&self, who: Who) -> ProcessId {
        match who {
            Who::Known(id) => id,
            Who::Number { pid, alive } => {
                let live = self.processes.live(pid).filter(|_| alive);
                let process =
                    live.or_else(|| self.processes.last_dead(pid)).or_else(|| self.processes.live(pid));
                process.map_or(ProcessId { pid, start: BootTime(0) }, |process| process.id)
            }
        }
    }

    fn emit_access(&mut self, access: &Access) {
        let process = self.processes.get(access.process).cloned();
        let membership = process.as_ref().and_then(|process| process.membership.clone());
        let mut notes = Notes::default();
        let body = access.body(&mut notes);
        if let Some(membership) = &membership {
            self.summarise(membership, |summary| summary.secret_accesses += 1);
        }
        self.emit(access.time, membership.as_ref(), process.as_ref(), notes, Body::SecretAccess(body));
    }

    fn emit_credential(
        &mut self,
        time: BootTime,
        membership: &Membership,
        process: &Process,
        body: v1::CredentialUse,
    ) {
        self.summarise(membership, |summary| summary.credential_uses += 1);
        self.emit(time, Some(membership), Some(process), Notes::default(), Body::CredentialUse(body));
    }

    /// Ends jobs of which nothing runs any more, where the runner goes on.
    fn end_idle_jobs(&mut self, now: BootTime) {
        if !self.jobs.has_idle() {
            return;
        }
        let works_for = |process: &Process, job_id: &str| {
            process.membership.as_ref().is_some_and(|membership| membership.job.job_id == job_id)
        };
        let is_left = |job_id: &str| self.processes.all_live().any(|process| works_for(process, job_id));
        self.jobs.end_idle(now, self.job_idle, is_left);
    }

    fn end_jobs(&mut self, due: impl Fn(BootTime) -> bool) {
        let ended = self.jobs.take_ended(due);
        if ended.is_empty() {
            return;
        }
        // Whatever the dead left unfinished belongs before the end of their jobs.
        let dead = |id: ProcessId| self.processes.live(id.pid).is_none_or(|process| process.id != id);
        let (accesses, lookups) = (self.accesses.flush(dead), self.lookups.flush(dead));
        for access in accesses {
            self.emit_access(&access);
        }
        for lookup in lookups {
            self.emit_lookup(lookup);
        }
        for EndedJob { job, summary, time } in ended {
            self.close_job(job, summary, time);
        }
    }

    fn summarise(&mut self, membership: &Membership, change: impl FnOnce(&mut v1::JobFinished)) {
        if let Some(state) = self.jobs.get_mut(&membership.job.job_id) {
            change(&mut state.summary);
        }
    }

    fn emit_about_host(&mut self, body: Body) {
        self.emit(BootTime::now(), None, None, Notes::default(), body);
    }

    fn emit(
        &mut self,
        time: BootTime,
        membership: Option<&Membership>,
        process: Option<&Process>,
        mut notes: Notes,
        body: Body,
    ) {
        self.health.captured += 1;
        let over = |membership: &Membership| self.jobs.is_over(&membership.job.job_id);
        let after_job = membership.is_some_and(over) && !matches!(body, Body::JobFinished(_));
        let process = process.map(|process| event::process(process, &mut notes));
        self.output.push(v1::AuditEvent {
            // The output knows host and boot, and numbers the events.
            host_id: String::new(),
            boot_id: String::new(),
            sequence: 0,
            time: Some(timestamp_from_unix_nanos(time.to_unix_nanos())),
            boot_time_ns: time.0,
            job: membership.map(|membership| membership.job.as_ref().clone()),
            step: membership.and_then(|membership| membership.step.as_deref().cloned()),
            process,
            text_escaped: notes.escaped,
            truncated: notes.truncated,
            after_job,
            body: Some(body),
        });
    }
}

#[cfg(test)]
mod tests;
