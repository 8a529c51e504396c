//! Bodies of `connection.opened`, `connection.closed` and `socket.opened`.

use buildtrail_proto::v1;
use nix::libc;

use crate::{
    clock::BootTime,
    sensor::records::{Closed, Connect, Progress, Socket},
};

/// What a connection said about where it goes, in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// TLS server name.
    pub tls_server_name: String,
    /// What a proxy was asked for.
    pub proxied_to: String,
}

/// Protocol, and its number where the name does not say it.
fn protocol(connect: &Connect) -> (v1::Protocol, u32) {
    match i32::from(connect.protocol) {
        libc::IPPROTO_TCP => (v1::Protocol::Tcp, 0),
        libc::IPPROTO_UDP => (v1::Protocol::Udp, 0),
        libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => (v1::Protocol::Icmp, 0),
        libc::IPPROTO_SCTP => (v1::Protocol::Sctp, 0),
        _ => (v1::Protocol::Other, u32::from(connect.protocol)),
    }
}

/// Body of `connection.opened`.
#[must_use]
pub fn opened(connect: &Connect, dns_names: &[String]) -> v1::ConnectionOpened {
    let (protocol, ip_protocol) = protocol(connect);
    v1::ConnectionOpened {
        protocol: protocol.into(),
        remote_address: connect.address.to_string(),
        remote_port: u32::from(connect.port),
        ip_protocol,
        dns_names: dns_names.to_vec(),
        unconnected: connect.unconnected,
        socket: connect.socket.0,
        taken_over: connect.taken_over,
    }
}

/// Body of `connection.closed`.
#[must_use]
pub fn closed(
    closed: &Closed,
    time: BootTime,
    dns_names: Vec<String>,
    introduction: Introduction,
) -> v1::ConnectionClosed {
    let connect = &closed.connect;
    let (protocol, ip_protocol) = protocol(connect);
    v1::ConnectionClosed {
        protocol: protocol.into(),
        remote_address: connect.address.to_string(),
        remote_port: u32::from(connect.port),
        ip_protocol,
        dns_names,
        unconnected: connect.unconnected,
        socket: connect.socket.0,
        result: result(closed, protocol).into(),
        error: closed.error,
        bytes_out: closed.bytes_out,
        bytes_in: closed.bytes_in,
        duration_ns: time.since(closed.opened),
        local_address: closed.local.map(|(address, _)| address.to_string()).unwrap_or_default(),
        local_port: closed.local.map(|(_, port)| u32::from(port)).unwrap_or_default(),
        tls_server_name: introduction.tls_server_name,
        proxied_to: introduction.proxied_to,
    }
}

fn result(closed: &Closed, protocol: v1::Protocol) -> v1::ConnectionResult {
    use v1::ConnectionResult as R;
    let error = i32::try_from(closed.error).unwrap_or(i32::MAX);
    match (closed.progress, error) {
        _ if protocol != v1::Protocol::Tcp => R::Closed,
        (Progress::None, _) => R::NotStarted,
        (Progress::Started, 0) => R::Abandoned,
        (Progress::Established, 0) => R::Closed,
        (_, libc::ECONNREFUSED) => R::Refused,
        (_, libc::ETIMEDOUT) => R::TimedOut,
        // EPIPE: after the other end had finished (net/ipv4/tcp_input.c, `tcp_reset`).
        (_, libc::ECONNRESET | libc::EPIPE) => R::Reset,
        (_, libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENOPROTOOPT) => R::Unreachable,
        _ => R::Failed,
    }
}

/// Body of `socket.opened`.
#[must_use]
pub fn socket_opened(socket: Socket) -> v1::SocketOpened {
    let access = match i32::try_from(socket.family).unwrap_or(i32::MAX) {
        libc::AF_INET | libc::AF_INET6 => v1::SocketAccess::RawIp,
        libc::AF_PACKET => v1::SocketAccess::Packet,
        libc::AF_XDP => v1::SocketAccess::Xdp,
        libc::AF_VSOCK => v1::SocketAccess::Vsock,
        _ => v1::SocketAccess::Other,
    };
    v1::SocketOpened {
        access: access.into(),
        family: socket.family,
        r#type: socket.kind,
        protocol: socket.protocol,
    }
}

#[cfg(test)]
mod tests {
    use v1::ConnectionResult as R;

    use super::*;
    use crate::sensor::records::SocketId;

    #[test]
    fn the_result_follows_from_how_far_a_connection_got_and_from_its_error() {
        let result_of = |protocol: u8, progress: Progress, error: i32| {
            let connect = Connect {
                address: [127, 0, 0, 1].into(),
                port: 443,
                protocol,
                unconnected: false,
                taken_over: false,
                socket: SocketId(1),
            };
            let end = Closed {
                connect,
                opened: BootTime(10),
                local: None,
                bytes_out: 1,
                bytes_in: 2,
                error: u32::try_from(error).unwrap(),
                progress,
            };
            closed(&end, BootTime(30), Vec::new(), Introduction::default()).result()
        };
        let tcp = |progress, error| result_of(6, progress, error);
        assert_eq!(tcp(Progress::Established, 0), R::Closed);
        assert_eq!(tcp(Progress::Established, libc::ECONNRESET), R::Reset);
        assert_eq!(tcp(Progress::Established, libc::EPIPE), R::Reset);
        assert_eq!(tcp(Progress::Established, libc::ETIMEDOUT), R::TimedOut);
        assert_eq!(tcp(Progress::Started, libc::ECONNREFUSED), R::Refused);
        assert_eq!(tcp(Progress::Started, libc::ETIMEDOUT), R::TimedOut);
        assert_eq!(tcp(Progress::Started, libc::EHOSTUNREACH), R::Unreachable);
        assert_eq!(tcp(Progress::Started, 0), R::Abandoned);
        assert_eq!(tcp(Progress::Started, libc::EIO), R::Failed);
        assert_eq!(tcp(Progress::None, 0), R::NotStarted);
        assert_eq!(result_of(17, Progress::None, 0), R::Closed);
    }
}
