//! Connections, lookups and credential sockets of jobs.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::{Pipeline, connections::is_route_question};
use crate::{
    catalog::{metadata, sockets},
    clock::BootTime,
    event::{self, connection, dns::Lookup, text::Notes},
    job::Membership,
    process::{Process, ProcessId},
    sensor::records::{Connect, Dns},
};

/// Things remembered of one process.
const MAX_SEEN: usize = 4096;

/// What each process has done: repetitions are not news.
#[derive(Debug)]
pub(super) struct Seen<T>(HashMap<ProcessId, HashSet<T>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Seen<T> {
    /// Whether the process does this for the first time, as far as is remembered.
    pub(super) fn is_new(&mut self, process: ProcessId, what: T) -> bool {
        let known = self.0.entry(process).or_default();
        if known.len() >= MAX_SEEN {
            known.clear();
        }
        known.insert(what)
    }

    pub(super) fn forget(&mut self, process: ProcessId) {
        self.0.remove(&process);
    }
}

/// Where unconnected datagrams go, or what is written to other processes' connections.
pub(super) type Destination = (IpAddr, u16, u8);
/// The path or name of a unix socket.
pub(super) type ServicePath = Vec<u8>;
/// `AF_*`
pub(super) type Family = u32;

impl Pipeline {
    /// The process and what it works for, if it works for a job.
    pub(super) fn in_job(&self, id: ProcessId) -> Option<(Process, Membership)> {
        let process = self.processes.get(id)?;
        Some((process.clone(), process.membership.clone()?))
    }

    pub(super) fn take_connect(&mut self, id: ProcessId, time: BootTime, connect: &Connect) {
        if is_route_question(connect.protocol, connect.port) {
            return;
        }
        let Some((process, membership)) = self.in_job(id) else { return };
        let repeats = connect.unconnected || connect.taken_over;
        if repeats && !self.destinations.is_new(id, (connect.address, connect.port, connect.protocol)) {
            return;
        }
        let names = self
            .jobs
            .get_mut(&membership.job.job_id)
            .map(|state| state.names_of(connect.address).to_vec())
            .unwrap_or_default();
        let body = connection::opened(connect, &names);
        self.connections.open(connect.socket, process.clone(), membership.clone(), names);
        self.summarise(&membership, |summary| summary.connections += 1);
        self.emit(time, Some(&membership), Some(&process), Notes::default(), Body::ConnectionOpened(body));

        self.look_for_local_delegation(&process, &membership, time, connect);
        if let Some(entry) = metadata::service(connect.address, connect.port) {
            let target = std::net::SocketAddr::new(connect.address, connect.port).to_string();
            let credential = event::credential_use(v1::CredentialKind::MetadataService, entry, target);
            self.emit_credential(time, &membership, &process, credential);
        }
    }

    pub(super) fn take_unix_connect(
        &mut self,
        id: ProcessId,
        time: BootTime,
        (peer_pid, path): (u32, &[u8]),
        by_send: bool,
    ) {
        self.note_engine(id, peer_pid, path);
        let Some((process, membership)) = self.in_job(id) else { return };
        self.look_for_unix_delegation(&process, &membership, time, (peer_pid, path));
        let listener = self.processes.live(peer_pid).map(|peer| peer.executable.clone());
        let Some(entry) = sockets::service(path, listener.as_deref().unwrap_or_default()) else { return };
        if !self.services.is_new(id, path.to_vec()) && by_send {
            // The connection itself was reported.
            return;
        }
        let mut notes = Notes::default();
        let target = event::socket_name(path, &mut notes);
        let credential = event::credential_use(v1::CredentialKind::AgentSocket, entry, target);
        self.summarise(&membership, |summary| summary.credential_uses += 1);
        self.emit(time, Some(&membership), Some(&process), notes, Body::CredentialUse(credential));
    }

    pub(super) fn take_dns(&mut self, id: ProcessId, time: BootTime, message: &Dns) {
        if self.in_job(id).is_none() {
            return;
        }
        let messages = match message.stream {
            Some(piece) => self.streams.add(piece, message),
            None => vec![message.clone()],
        };
        for message in messages {
            for lookup in self.lookups.add(time, id, &message) {
                self.emit_lookup(lookup);
            }
        }
    }

    pub(super) fn emit_lookup(&mut self, lookup: Lookup) {
        let Some((process, membership)) = self.in_job(lookup.process) else { return };
        if let Some(state) = self.jobs.get_mut(&membership.job.job_id) {
            for address in &lookup.addresses {
                state.learn_name(*address, &lookup.body.name);
            }
            state.summary.dns_lookups += 1;
        }
        self.emit(
            lookup.time,
            Some(&membership),
            Some(&process),
            Notes { truncated: lookup.truncated, ..Notes::default() },
            Body::DnsLookup(lookup.body),
        );
    }
}
