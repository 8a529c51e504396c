//! Connections of jobs that are open: who they belong to when they end, which can be long after their process.

use std::collections::HashMap;

use buildtrail_agent_abi::PayloadKind;
use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    clock::BootTime,
    event::{
        connection::{self, Introduction},
        hello,
        text::Notes,
    },
    job::Membership,
    process::{Process, ProcessId},
    sensor::records::{Closed, Payload, Socket, SocketId},
};

/// Open connections of all jobs that are remembered. The end of others is reported if their process is still known.
const MAX_OPEN: usize = 65_536;
/// Most of a `ClientHello` that is kept while its rest is on the way.
const MAX_HELLO: usize = 16_384;

/// A connection of a job.
#[derive(Debug)]
struct Open {
    process: Process,
    membership: Membership,
    dns_names: Vec<String>,
    hello: Vec<u8>,
    introduction: Introduction,
}

/// Connections that have not ended.
#[derive(Debug, Default)]
pub(super) struct Connections(HashMap<SocketId, Open>);

impl Connections {
    pub(super) fn open(
        &mut self,
        socket: SocketId,
        process: Process,
        membership: Membership,
        dns_names: Vec<String>,
    ) {
        if self.0.len() >= MAX_OPEN && !self.0.contains_key(&socket) {
            return;
        }
        let open = self.0.entry(socket).or_insert_with(|| Open {
            process: process.clone(),
            membership: membership.clone(),
            dns_names: Vec::new(),
            hello: Vec::new(),
            introduction: Introduction::default(),
        });
        // The latest user of a connection is who it belongs to.
        (open.process, open.membership, open.dns_names) = (process, membership, dns_names);
    }

    fn introduce(&mut self, payload: &Payload) {
        let Some(open) = self.0.get_mut(&payload.socket) else { return };
        match payload.kind {
            PayloadKind::PROXY => {
                open.introduction.proxied_to = hello::connect_target(&payload.bytes).unwrap_or_default();
            }
            PayloadKind::HELLO | PayloadKind::HELLO_MORE => {
                if payload.kind == PayloadKind::HELLO {
                    open.hello.clear();
                }
                if open.hello.len() + payload.bytes.len() <= MAX_HELLO {
                    open.hello.extend_from_slice(&payload.bytes);
                }
                if let Some(name) = hello::server_name(&open.hello) {
                    open.introduction.tls_server_name = name;
                    open.hello = Vec::new();
                }
            }
            _ => {}
        }
    }
}

impl Pipeline {
    pub(super) fn take_payload(&mut self, payload: &Payload) {
        self.connections.introduce(payload);
    }

    pub(super) fn take_closed(&mut self, id: ProcessId, time: BootTime, closed: &Closed) {
        let connect = &closed.connect;
        self.streams.forget(connect.socket);
        if is_route_question(connect.protocol, connect.port) {
            return;
        }
        let (process, membership, dns_names, introduction) = match self.connections.0.remove(&connect.socket)
        {
            Some(open) => (open.process, open.membership, open.dns_names, open.introduction),
            // Of datagrams to a destination that was reported for an earlier socket, the end is no news.
            None if connect.unconnected => return,
            None => match self.in_job(id) {
                Some((process, membership)) => (process, membership, Vec::new(), Introduction::default()),
                None => return,
            },
        };
        let body = connection::closed(closed, time, dns_names, introduction);
        self.emit(time, Some(&membership), Some(&process), Notes::default(), Body::ConnectionClosed(body));
    }

    pub(super) fn take_socket(&mut self, id: ProcessId, time: BootTime, socket: Socket) {
        let Some((process, membership)) = self.in_job(id) else { return };
        if !self.families.is_new(id, socket.family) && socket.by_send {
            // The socket itself was reported.
            return;
        }
        let body = connection::socket_opened(socket);
        self.emit(time, Some(&membership), Some(&process), Notes::default(), Body::SocketOpened(body));
    }
}

/// The C library asks the kernel for a route in this way (RFC 6724 sorting); nothing is sent.
pub(super) fn is_route_question(protocol: u8, port: u16) -> bool {
    i32::from(protocol) == nix::libc::IPPROTO_UDP && port == 0
}
