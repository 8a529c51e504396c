//! Connections, lookups and credential sockets of jobs.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    catalog::{metadata, sockets},
    clock::BootTime,
    event::{self, dns::Lookup, text::Notes},
    job::Membership,
    process::{Process, ProcessId},
    sensor::records::{Connect, Dns},
};

/// Destinations of unconnected datagrams remembered for one process.
const MAX_DESTINATIONS: usize = 4096;

/// Where each process has sent unconnected datagrams: repetitions are not news.
#[derive(Debug, Default)]
pub(super) struct Destinations(HashMap<ProcessId, HashSet<(IpAddr, u16, u8)>>);

impl Destinations {
    /// Whether this is the first datagram of the process to that destination, as far as is remembered.
    fn is_new(&mut self, process: ProcessId, connect: &Connect) -> bool {
        let known = self.0.entry(process).or_default();
        if known.len() >= MAX_DESTINATIONS {
            known.clear();
        }
        known.insert((connect.address, connect.port, connect.protocol))
    }

    pub(super) fn forget(&mut self, process: ProcessId) {
        self.0.remove(&process);
    }
}

impl Pipeline {
    /// The process and what it works for, if it works for a job.
    fn in_job(&self, id: ProcessId) -> Option<(Process, Membership)> {
        let process = self.processes.get(id)?;
        Some((process.clone(), process.membership.clone()?))
    }

    pub(super) fn take_connect(&mut self, id: ProcessId, time: BootTime, connect: &Connect) {
        let udp = i32::from(connect.protocol) == nix::libc::IPPROTO_UDP;
        if udp && connect.port == 0 {
            // The C library asks the kernel for a route in this way (RFC 6724 sorting); nothing is sent.
            return;
        }
        let Some((process, membership)) = self.in_job(id) else { return };
        if connect.unconnected && !self.destinations.is_new(id, connect) {
            return;
        }
        let names = self
            .jobs
            .get_mut(&membership.job.job_id)
            .map(|state| state.names_of(connect.address).to_vec())
            .unwrap_or_default();
        let body = event::connection_opened(connect, &names);
        self.summarise(&membership, |summary| summary.connections += 1);
        self.emit(time, Some(&membership), Some(&process), Notes::default(), Body::ConnectionOpened(body));

        if let Some(entry) = metadata::service(connect.address, connect.port) {
            let target = std::net::SocketAddr::new(connect.address, connect.port).to_string();
            let credential = event::credential_use(v1::CredentialKind::MetadataService, entry, target);
            self.emit_credential(time, &membership, &process, credential);
        }
    }

    pub(super) fn take_unix_connect(&mut self, id: ProcessId, time: BootTime, peer_pid: u32, path: &[u8]) {
        let Some((process, membership)) = self.in_job(id) else { return };
        let listener = self.processes.live(peer_pid).map(|peer| peer.executable.clone());
        let Some(entry) = sockets::service(path, listener.as_deref().unwrap_or_default()) else { return };
        let mut notes = Notes::default();
        // An abstract name begins with a zero byte, which tools write as @ (unix(7)).
        let target = match path.split_first() {
            Some((0, name)) => format!("@{}", notes.text(name)),
            _ => notes.text(path),
        };
        let credential = event::credential_use(v1::CredentialKind::AgentSocket, entry, target);
        self.summarise(&membership, |summary| summary.credential_uses += 1);
        self.emit(time, Some(&membership), Some(&process), notes, Body::CredentialUse(credential));
    }

    pub(super) fn take_dns(&mut self, id: ProcessId, time: BootTime, message: &Dns) {
        if self.in_job(id).is_none() {
            return;
        }
        for lookup in self.lookups.add(time, id, message) {
            self.emit_lookup(lookup);
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
