//! Whose a container is, although its processes descend from the engine.
//!
//! In: executions of engines' runtimes and of engines' clients, connections to engines' sockets, and the engine's own files.
//! Out: for each process that an engine starts in a container, the [`Party`] that asked for it. A container is given to a
//! party only where nobody else can have asked: because it is the only one that talks to an engine, or because an engine's
//! own client, which no job can have written, names this container. Labels, names and the environment of a container decide
//! between runners only, never between jobs: a job can write all of them. Must never guess: where two jobs can have asked it
//! is nobody's, and both are told of.

mod client;
mod facts;
mod runtime;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    rc::Rc,
};

use crate::{
    catalog::base_name, clock::BootTime, job::Membership, process::ProcessId, sensor::records::Exec,
};
use client::{Client, Fit};
pub use facts::Facts;
pub use runtime::Call;

/// How long a request can still be carried out after whoever made it has ended, in nanoseconds.
const REQUEST_MEMORY: u64 = 10_000_000_000;
/// Containers and requests that are remembered; more than a host has, and a bound.
const MOST: usize = 16_384;
/// Parts of engines: what they ask each other is asked by somebody else.
const ENGINES: [&[u8]; 6] = [
    b"dockerd",
    b"containerd",
    b"containerd-shim-runc-v2",
    b"docker-proxy",
    b"buildkitd",
    b"docker-containerd",
];

/// How the labels begin that runners give to their containers: GitLab Runner (docs.gitlab.com, "Docker executor",
/// container labels), Drone, Woodpecker.
const RUNNER_LABELS: [&str; 3] = ["com.gitlab.gitlab-runner.", "io.drone.", "wp_"];

/// Who can ask an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Party {
    /// A process of a job.
    Job(Membership),
    /// A runner, or a child of it that is not known to work for a job.
    Runner(ProcessId),
    /// Anybody else.
    Outside,
}

/// What tells parties apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Job(String),
    Runner(ProcessId),
    Outside,
}

impl Party {
    fn key(&self) -> Key {
        match self {
            Self::Job(membership) => Key::Job(membership.job.job_id.clone()),
            Self::Runner(runner) => Key::Runner(*runner),
            Self::Outside => Key::Outside,
        }
    }
}

/// A process that talks to an engine.
#[derive(Clone, Debug)]
struct Request {
    party: Party,
    client: Option<Client>,
    /// The runner itself started this very program.
    by_runner: bool,
    /// Where a runner works.
    directory: Vec<u8>,
    /// It asked for one thing, and that was done.
    done: bool,
    ended: Option<BootTime>,
}

impl Request {
    fn may_ask(&self, now: BootTime) -> bool {
        !self.done && self.ended.is_none_or(|ended| now.since(ended) < REQUEST_MEMORY)
    }

    /// The client's words, where they are its own.
    fn words(&self) -> Option<&Client> {
        self.client.as_ref().filter(|client| client.trusted)
    }
}

/// A process on its way from the runtime's program to the container's.
#[derive(Clone, Debug)]
struct OnItsWay {
    call: Rc<Call>,
    /// The next program that it executes is the container's.
    last_stage: bool,
}

/// A container that was seen to begin.
#[derive(Clone, Debug)]
struct Container {
    owner: Party,
    facts: Option<Rc<Facts>>,
}

/// A process that an engine started in a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Entered {
    /// Which container, and whether it begins with this process.
    pub call: Rc<Call>,
    /// What is known of the container.
    pub facts: Option<Rc<Facts>>,
    /// For whom; [`Party::Outside`] when it is for nobody that is known.
    pub party: Party,
    /// A process of the job asked for this, and the container is not one that the runner made for the job.
    pub by_the_job_itself: bool,
    /// Jobs that can have asked, where that is more than one, or a job and somebody else.
    pub undecided: Vec<Membership>,
}

/// What is known of the host's containers.
#[derive(Debug, Default)]
pub struct Containers {
    on_their_way: HashMap<ProcessId, OnItsWay>,
    clients: HashMap<ProcessId, (Client, bool)>,
    requests: HashMap<ProcessId, Request>,
    known: HashMap<String, Container>,
    next_sweep: BootTime,
}

impl Containers {
    /// A process was created.
    pub fn fork(&mut self, creator: ProcessId, child: ProcessId) {
        if let Some(mut way) = self.on_their_way.get(&creator).cloned() {
            way.last_stage |= !way.call.staged;
            self.on_their_way.insert(child, way);
        }
    }

    /// A process ended.
    pub fn exit(&mut self, process: ProcessId, time: BootTime) {
        self.on_their_way.remove(&process);
        self.clients.remove(&process);
        if let Some(request) = self.requests.get_mut(&process) {
            request.ended = Some(time);
        }
    }

    /// A process outside any job executed a program. The call that it carries out, when that program is the container's.
    pub fn exec(&mut self, process: ProcessId, executable: &[u8], exec: &Exec) -> Option<Rc<Call>> {
        if let Some(call) = runtime::call(executable, &exec.arguments, exec.parent_pid) {
            if self.on_their_way.len() < MOST {
                let way = OnItsWay { call: Rc::new(call), last_stage: false };
                self.on_their_way.insert(process, way);
            }
            return None;
        }
        let way = self.on_their_way.get_mut(&process)?;
        if runtime::is_second_stage(&exec.arguments) {
            way.last_stage = true;
            return None;
        }
        let way = self.on_their_way.remove(&process)?;
        // Without that stage it is a hook that runc runs on the host.
        way.last_stage.then_some(way.call)
    }

    /// Any process executed a program; `by_runner`: a runner started it with this one.
    pub fn note_client(&mut self, process: ProcessId, executable: &[u8], exec: &Exec, by_runner: bool) {
        match Client::of(executable, exec) {
            Some(client) if self.clients.len() < MOST => {
                self.clients.insert(process, (client, by_runner));
            }
            _ => {
                self.clients.remove(&process);
            }
        }
    }

    /// A process connected to an engine's socket. `directory`: where it works.
    pub fn connected(&mut self, process: ProcessId, party: Party, executable: &[u8], directory: Vec<u8>) {
        let is_engine = ENGINES.contains(&base_name(executable));
        if is_engine && party == Party::Outside || self.requests.len() >= MOST {
            return;
        }
        let client = self.clients.get(&process).cloned();
        let by_runner =
            client.as_ref().is_some_and(|(_, by_runner)| *by_runner) || is_runner(&party, process);
        let client = client.map(|(client, _)| client);
        self.requests.entry(process).or_insert(Request {
            party,
            client,
            by_runner,
            directory,
            done: false,
            ended: None,
        });
    }

    /// Decides whose a process is that an engine started.
    pub fn enter(&mut self, call: Rc<Call>, root: &Path, arguments: &[Vec<u8>], now: BootTime) -> Entered {
        if call.begins { self.begin(call, root, now) } else { self.further(call, arguments, now) }
    }

    /// The container begins: who asked for it?
    fn begin(&mut self, call: Rc<Call>, root: &Path, now: BootTime) -> Entered {
        let facts =
            call.bundle.as_deref().and_then(|bundle| facts::read(root, bundle, &call.id)).map(Rc::new);
        if let Some(known) = self.known.get(&call.id) {
            let party = known.owner.clone();
            // Whoever asks again does not get somebody else's container.
            return Entered { call, facts, party, by_the_job_itself: false, undecided: Vec::new() };
        }
        let choice =
            self.choose(now, facts.as_deref(), |client| client.fits_start(&call.id, facts.as_deref()));
        if self.known.len() < MOST {
            let container = Container { owner: choice.party.clone(), facts: facts.clone() };
            self.known.insert(call.id.clone(), container);
        }
        let by_the_job_itself = matches!(choice.party, Party::Job(_)) && !choice.by_runner;
        Entered { call, facts, party: choice.party, by_the_job_itself, undecided: choice.undecided }
    }

    /// A further process in a container: who asked for it? Else it is the container's owner's.
    fn further(&mut self, call: Rc<Call>, arguments: &[Vec<u8>], now: BootTime) -> Entered {
        let known = self.known.get(&call.id).cloned();
        let facts = known.as_ref().and_then(|known| known.facts.clone());
        let named = self.named(now, |client| client.fits_exec(&call.id, facts.as_deref(), arguments));
        let owner = known.map_or(Party::Outside, |known| known.owner);
        let Some((process, request)) = named else {
            return Entered {
                call,
                facts,
                party: self.narrowed(owner, now),
                by_the_job_itself: false,
                undecided: Vec::new(),
            };
        };
        self.done(process);
        let own = owner.key() == request.party.key();
        let by_the_job_itself = matches!(request.party, Party::Job(_)) && !request.by_runner && !own;
        Entered { call, facts, party: request.party, by_the_job_itself, undecided: Vec::new() }
    }

    /// The step of the job that alone talks to an engine, where there is one.
    fn narrowed(&self, owner: Party, now: BootTime) -> Party {
        let Party::Job(membership) = &owner else { return owner };
        let mut steps: Vec<Membership> = Vec::new();
        for request in
            self.requests.values().filter(|request| request.may_ask(now) && request.words().is_none())
        {
            if let Party::Job(other) = &request.party
                && other.job.job_id == membership.job.job_id
                && !steps.contains(other)
            {
                steps.push(other.clone());
            }
        }
        match steps.as_slice() {
            [only] => Party::Job(only.clone()),
            _ => Party::Job(Membership { job: Rc::clone(&membership.job), step: None }),
        }
    }

    /// The one client whose words name what was done.
    fn named(&self, now: BootTime, fit: impl Fn(&Client) -> Fit) -> Option<(ProcessId, Request)> {
        let mut named: Vec<(&ProcessId, &Request)> = self
            .requests
            .iter()
            .filter(|(_, request)| request.may_ask(now))
            .filter(|(_, request)| request.words().is_some_and(|client| fit(client) == Fit::Names))
            .collect();
        let first = named.pop()?;
        let alike = named.iter().all(|(_, request)| request.party == first.1.party);
        alike.then(|| (*first.0, first.1.clone()))
    }

    fn choose(&mut self, now: BootTime, facts: Option<&Facts>, fit: impl Fn(&Client) -> Fit) -> Choice {
        if let Some((process, request)) = self.named(now, &fit) {
            self.done(process);
            return Choice::of(&request);
        }
        let possible: Vec<(ProcessId, Request)> = self
            .requests
            .iter()
            .filter(|(_, request)| request.may_ask(now))
            .filter(|(_, request)| request.words().is_none_or(|client| fit(client) != Fit::No))
            .map(|(process, request)| (*process, request.clone()))
            .collect();
        let keys: HashSet<Key> = possible.iter().map(|(_, request)| request.party.key()).collect();
        if keys.len() == 1
            && let Some((process, request)) = possible.first()
        {
            if possible.len() == 1 {
                self.done(*process);
                return Choice::of(request);
            }
            return Choice::among(&possible);
        }
        let jobs = possible.iter().filter_map(|(_, request)| match &request.party {
            Party::Job(membership) => Some(membership),
            Party::Runner(_) | Party::Outside => None,
        });
        let mut undecided: Vec<Membership> = Vec::new();
        for membership in jobs {
            if !undecided.iter().any(|other| other.job.job_id == membership.job.job_id) {
                undecided.push(membership.clone());
            }
        }
        let party = if undecided.is_empty() { runner_at(&possible, facts) } else { Party::Outside };
        Choice { party, by_runner: true, undecided }
    }

    /// A client that asks for one thing has got it.
    fn done(&mut self, process: ProcessId) {
        if let Some(request) = self.requests.get_mut(&process)
            && request.words().is_some_and(Client::asks_once)
        {
            request.done = true;
        }
    }

    /// Forgets requests that can no more be carried out.
    pub fn sweep(&mut self, now: BootTime) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = BootTime(now.0 + REQUEST_MEMORY / 10);
        self.requests.retain(|_, request| request.ended.is_none() || request.may_ask(now));
    }

    /// A job has ended: what it asked for and what is its own is forgotten.
    pub fn end_job(&mut self, job_id: &str) {
        let is_its =
            |party: &Party| matches!(party, Party::Job(membership) if membership.job.job_id == job_id);
        self.known.retain(|_, container| !is_its(&container.owner));
        self.requests.retain(|_, request| request.ended.is_none() || !is_its(&request.party));
    }

    /// A runner has ended.
    pub fn end_runner(&mut self, runner: ProcessId) {
        self.known.retain(|_, container| container.owner != Party::Runner(runner));
    }

    /// What is remembered, for tests of memory.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.on_their_way.len() + self.clients.len() + self.requests.len() + self.known.len()
    }
}

/// Whose something is.
struct Choice {
    party: Party,
    by_runner: bool,
    undecided: Vec<Membership>,
}

impl Choice {
    fn of(request: &Request) -> Self {
        Self { party: request.party.clone(), by_runner: request.by_runner, undecided: Vec::new() }
    }

    /// Several processes of one party; the step where all agree.
    fn among(possible: &[(ProcessId, Request)]) -> Self {
        let Some((_, first)) = possible.first() else {
            return Self { party: Party::Outside, by_runner: false, undecided: Vec::new() };
        };
        let alike = possible.iter().all(|(_, request)| request.party == first.party);
        let party = match &first.party {
            Party::Job(membership) if !alike => {
                Party::Job(Membership { job: Rc::clone(&membership.job), step: None })
            }
            party => party.clone(),
        };
        let by_runner = possible.iter().all(|(_, request)| request.by_runner);
        Self { party, by_runner, undecided: Vec::new() }
    }
}

/// Of runners and others than jobs: the only runner, where the container has a runner's labels, or the one that works in the
/// directory where the container's first process starts. No job can have asked.
fn runner_at(possible: &[(ProcessId, Request)], facts: Option<&Facts>) -> Party {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(facts) = facts else { return Party::Outside };
    let mut all: Vec<&Party> = possible
        .iter()
        .map(|(_, request)| &request.party)
        .filter(|party| matches!(party, Party::Runner(_)))
        .collect();
    all.dedup();
    if let [only] = all.as_slice()
        && facts.labels.iter().any(|label| RUNNER_LABELS.iter().any(|start| label.starts_with(start)))
    {
        return (*only).clone();
    }
    let place = facts.working_directory.as_os_str().as_bytes();
    let mut runners: Vec<&Party> = possible
        .iter()
        .filter(|(_, request)| matches!(request.party, Party::Runner(_)) && request.directory == place)
        .map(|(_, request)| &request.party)
        .collect();
    runners.dedup();
    match runners.as_slice() {
        [only] => (*only).clone(),
        _ => Party::Outside,
    }
}

fn is_runner(party: &Party, process: ProcessId) -> bool {
    *party == Party::Runner(process)
}

#[cfg(test)]
mod tests;
