//! Processes that an engine starts in containers, and who asks engines for them.

use std::{path::PathBuf, rc::Rc};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    catalog::sockets,
    clock::BootTime,
    container::{Entered, Facts, Party},
    event::text::Notes,
    job::Membership,
    process::{self, Process, ProcessId, Role},
    sensor::records::Exec,
};

/// The family of the catalogue's sockets that are engines'.
const FAMILY: &str = "container";

impl Pipeline {
    /// A process that works for nobody executed a program: perhaps an engine started it in a container.
    pub(super) fn enter_container(&mut self, id: ProcessId, time: BootTime, exec: &Exec) {
        let Some(process) = self.processes.get(id) else { return };
        if process.membership.is_some() || process.role != Role::Other {
            return;
        }
        let executable = Rc::clone(&process.executable);
        let Some(call) = self.containers.exec(id, &executable, exec) else { return };
        let root = PathBuf::from(format!("/proc/{}/root", call.caller));
        let root = if root.exists() { root } else { PathBuf::from("/") };
        let entered = self.containers.enter(call, &root, &exec.arguments, time);
        self.processes.set_container(id, &entered.call.id);
        match &entered.party {
            Party::Job(membership) => {
                self.heritage.name(id, membership);
                self.processes.set_membership(id, Some(membership.clone()));
            }
            // What runs in it is named like any other child of the runner.
            Party::Runner(runner) => self.processes.set_runner(id, *runner),
            Party::Outside => {}
        }
        self.report_container(id, time, &entered);
    }

    /// Tells of containers that a job had started by itself, and of those that it may have asked for.
    fn report_container(&mut self, id: ProcessId, time: BootTime, entered: &Entered) {
        if let Party::Job(membership) = &entered.party
            && entered.by_the_job_itself
        {
            let process = self.processes.get(id).cloned();
            let mut notes = Notes::default();
            let body = escape(entered, &mut notes);
            self.emit(time, Some(membership), process.as_ref(), notes, Body::Escape(body));
        }
        for membership in &entered.undecided {
            let body = v1::Delegation {
                way: v1::DelegationWay::Socket.into(),
                service: "container engine".to_owned(),
                target: entered.call.id.clone(),
                request: "this job or somebody else asked for this container".to_owned(),
                ..v1::Delegation::default()
            };
            let whole_job = Membership { job: Rc::clone(&membership.job), step: None };
            self.emit(time, Some(&whole_job), None, Notes::default(), Body::Delegation(body));
        }
    }

    /// Somebody connected to an engine: it may ask for containers.
    pub(super) fn note_engine(&mut self, id: ProcessId, peer_pid: u32, path: &[u8]) {
        let listener = self.processes.live(peer_pid);
        let program = listener.map(|listener| Rc::clone(&listener.executable)).unwrap_or_default();
        let is_engine = sockets::service(path, &program).is_some_and(|entry| entry.family == FAMILY);
        // An engine that a job started has the job's lineage, and so have its containers.
        if !is_engine || listener.is_some_and(|listener| listener.membership.is_some()) {
            return;
        }
        let (party, executable) = match self.processes.get(id) {
            Some(process) => (party(process), Rc::clone(&process.executable)),
            None => (Party::Outside, Rc::default()),
        };
        let directory = match party {
            Party::Runner(_) => process::look::working_directory(id.pid),
            Party::Job(_) | Party::Outside => Vec::new(),
        };
        self.containers.connected(id, party, &executable, directory);
    }
}

fn party(process: &Process) -> Party {
    match (&process.membership, process.creator_runner()) {
        (Some(membership), _) => Party::Job(membership.clone()),
        (None, Some(runner)) => Party::Runner(runner),
        (None, None) if process.role == Role::Runner => Party::Runner(process.id),
        (None, None) => Party::Outside,
    }
}

fn escape(entered: &Entered, notes: &mut Notes) -> v1::Escape {
    let unknown = Facts::default();
    let facts = entered.facts.as_deref().unwrap_or(&unknown);
    let mut text = |text: &str| {
        // What an engine wrote as JSON is text already; this marks what was escaped.
        notes.text(text.as_bytes())
    };
    v1::Escape {
        kind: v1::EscapeKind::Container.into(),
        way: if entered.call.begins { "container started" } else { "process started in a container" }
            .to_owned(),
        container_id: entered.call.id.clone(),
        container_name: text(&facts.name),
        image: text(&facts.image),
        privileged: facts.privileged,
        host_paths: facts.host_paths.iter().map(|path| text(path)).collect(),
        target: String::new(),
    }
}
