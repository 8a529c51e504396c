//! Work that a job hands to a daemon that is not its own. The daemon's doings stay its own; the hand-over is the job's.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt as _,
};

use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    catalog::{base_name, delegates},
    clock::BootTime,
    event::{self, text::Notes},
    job::Membership,
    process::{Process, ProcessId},
    sensor::records::{Connect, Exec},
};

/// Most bytes of a table of sockets that are read.
const MAX_TABLE: usize = 1 << 20;
/// Other jobs' processes that are asked whether they listen.
const MAX_ASKED: usize = 256;
/// `TCP_LISTEN` in /proc/net/tcp (`include/net/tcp_states.h`).
const LISTENING: &str = "0A";

/// A hand-over, as far as it is known where it is seen.
struct HandOver<'a> {
    way: v1::DelegationWay,
    service: &'static str,
    target: String,
    request: String,
    daemon: Option<&'a Process>,
}

impl Pipeline {
    /// A command that has something else do the work.
    pub(super) fn look_for_delegation(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        exec: &Exec,
    ) {
        let Some(service) = delegates::command(&exec.arguments) else { return };
        let mut notes = Notes::default();
        let command = exec.arguments.first().map(|program| notes.text(base_name(program)));
        let command = command.unwrap_or_default();
        let hand_over = HandOver {
            way: v1::DelegationWay::Command,
            service,
            target: command.clone(),
            request: command,
            daemon: None,
        };
        self.tell_delegation(process, membership, time, notes, hand_over);
    }

    /// A connection to a unix socket: to a known service, or to a process of another job.
    pub(super) fn look_for_unix_delegation(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        (peer_pid, path): (u32, &[u8]),
    ) {
        let peer = self.processes.live(peer_pid).cloned();
        let foreign = peer.as_ref().filter(|peer| is_of_another_job(peer, membership));
        let same_job = peer.as_ref().is_some_and(|peer| peer.membership.is_some()) && foreign.is_none();
        let known = delegates::socket(path).filter(|_| !same_job);
        let Some(service) = known.or_else(|| foreign.map(|peer| delegates::daemon(&peer.executable))) else {
            return;
        };
        if !self.hand_overs.is_new(process.id, path.to_vec()) {
            return;
        }
        let mut notes = Notes::default();
        let hand_over = HandOver {
            way: v1::DelegationWay::Socket,
            service,
            target: event::socket_name(path, &mut notes),
            request: String::new(),
            daemon: peer.as_ref(),
        };
        self.tell_delegation(process, membership, time, notes, hand_over);
    }

    /// A connection to this host itself: to a known service, or to a process that another job left or runs.
    pub(super) fn look_for_local_delegation(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        connect: &Connect,
    ) {
        if !is_local(connect.address) || i32::from(connect.protocol) != nix::libc::IPPROTO_TCP {
            return;
        }
        let target = std::net::SocketAddr::new(connect.address, connect.port).to_string();
        if !self.hand_overs.is_new(process.id, target.clone().into_bytes()) {
            return;
        }
        let daemon = self.foreign_listener(process.id, membership, connect.port);
        let service = delegates::port(connect.port)
            .or_else(|| daemon.as_ref().map(|daemon| delegates::daemon(&daemon.executable)));
        let Some(service) = service else { return };
        let hand_over = HandOver {
            way: v1::DelegationWay::Socket,
            service,
            target,
            request: String::new(),
            daemon: daemon.as_ref(),
        };
        self.tell_delegation(process, membership, time, Notes::default(), hand_over);
    }

    fn tell_delegation(
        &mut self,
        process: &Process,
        membership: &Membership,
        time: BootTime,
        mut notes: Notes,
        hand_over: HandOver<'_>,
    ) {
        let of_daemon = hand_over.daemon.and_then(|daemon| daemon.membership.as_ref());
        let body = v1::Delegation {
            way: hand_over.way.into(),
            service: hand_over.service.to_owned(),
            target: hand_over.target,
            request: hand_over.request,
            daemon_job_id: of_daemon.map(|of| of.job.job_id.clone()).unwrap_or_default(),
            daemon: hand_over.daemon.map(|daemon| event::process(daemon, &mut notes)),
        };
        self.emit(time, Some(membership), Some(process), notes, Body::Delegation(body));
    }

    /// The process of another job that listens on this port in the caller's network namespace.
    fn foreign_listener(&self, caller: ProcessId, membership: &Membership, port: u16) -> Option<Process> {
        let of_others = self.processes.all_live().filter(|process| is_of_another_job(process, membership));
        let of_others: Vec<&Process> = of_others.take(MAX_ASKED).collect();
        if of_others.is_empty() {
            return None;
        }
        let sockets: Vec<u64> =
            ["tcp", "tcp6"].iter().flat_map(|table| listeners(caller.pid, table, port)).collect();
        if sockets.is_empty() {
            return None;
        }
        of_others.into_iter().find(|process| holds_one_of(process.id.pid, &sockets)).cloned()
    }
}

fn is_of_another_job(process: &Process, membership: &Membership) -> bool {
    process.membership.as_ref().is_some_and(|other| other.job.job_id != membership.job.job_id)
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(address) => address.is_loopback() || address.is_unspecified(),
    }
}

/// Inode numbers of the sockets that listen on a port, as the process's network namespace has them.
fn listeners(pid: u32, table: &str, port: u16) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    let text = text.get(..text.floor_char_boundary(MAX_TABLE)).unwrap_or_default();
    text.lines().skip(1).filter_map(|line| listener(line, port)).collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …` (proc(5)).
fn listener(line: &str, port: u16) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    let state = words.nth(1)?;
    let number = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    (state == LISTENING && number == port).then(|| words.nth(5)?.parse().ok())?
}

fn holds_one_of(pid: u32, sockets: &[u64]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let inode = |entry: fs::DirEntry| fs::metadata(entry.path()).ok().map(|metadata| metadata.ino());
    descriptors.filter_map(Result::ok).filter_map(inode).any(|inode| sockets.contains(&inode))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = std::process::id();
        let found = listeners(own, "tcp", port);
        assert_eq!(found.len(), 1);
        assert!(holds_one_of(own, &found));
        assert!(!holds_one_of(own, &[]));
        for line in ["", "x", "0: 0100007F:0016", "0: 0100007F:ZZ 0:0 0A 0 0 0 0 0 5"] {
            assert_eq!(listener(line, 22), None, "{line:?}");
        }
    }
}
