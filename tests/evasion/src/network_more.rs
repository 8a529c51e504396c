//! Sockets beyond TCP and UDP: raw, packet, ICMP, unix, vsock, SCTP; and what only a sensor of flows can tell.

use std::{
    fs,
    io::Write as _,
    mem,
    net::UdpSocket,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::socket::{SockaddrLike as _, VsockAddr},
};

use crate::{
    call::absent,
    expect::{Event, Family, Match::Ends, Match::Is, Match::Number, Seen, Technique},
    network::{connect, loopback, net, socket},
    place::Place,
};

const fn unseen(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    why: &'static str,
) -> Technique {
    Technique { name, family: Family::Network, what, run, a: Seen::Gap(why), b: Seen::Gap(why), never: &[] }
}

/// A socket of another kind as it is told.
macro_rules! opened {
    ($access:literal) => {
        Event { body: "socket_opened", fields: &[("access", Is(concat!("SOCKET_ACCESS_", $access)))] }
    };
}

/// A destination that packets name.
macro_rules! packets {
    ($protocol:literal $(, $field:literal $expected:expr)*) => {
        Event {
            body: "connection_opened",
            fields: &[
                ("protocol", Is(concat!("PROTOCOL_", $protocol))),
                ("remote_address", Is("127.0.0.1")),
                $(($field, $expected),)*
            ],
        }
    };
}

const DOCKER: &[Event] = &[Event {
    body: "credential_use",
    fields: &[("kind", Is("CREDENTIAL_KIND_AGENT_SOCKET")), ("target", Ends("/docker.sock"))],
}];

pub(crate) const TECHNIQUES: &[Technique] = &[
    net("unix", "unix socket of a container engine", unix, DOCKER),
    unseen(
        "unix-abstract",
        "abstract unix socket",
        |_| abstract_unix(),
        "Unix sockets are told when they are those of services that hand out credentials.",
    ),
    unseen(
        "unix-datagram",
        "datagram to a unix socket",
        unix_datagram,
        "Datagrams without connect to unix sockets are not looked at: no known service takes them.",
    ),
    net(
        "raw",
        "raw IP socket",
        |_| raw(),
        &[opened!("RAW_IP"), packets!("UDP", "remote_port" Number(21030))],
    ),
    net("packet", "packet socket", |_| packet(), &[opened!("PACKET")]),
    net("icmp", "ICMP echo by a ping socket", |_| icmp(), &[packets!("ICMP")]),
    net("vsock", "vsock to this machine", |_| vsock(), &[opened!("VSOCK")]),
    net("sctp", "SCTP", |_| sctp(), &[packets!("SCTP", "remote_port" Number(21033))]),
];

fn unix(place: &Place) -> Result<()> {
    let path = place.new_directory("run")?.join("docker.sock");
    let _listener = UnixListener::bind(&path)?;
    UnixStream::connect(path)?;
    Ok(())
}

fn abstract_unix() -> Result<()> {
    let address = SocketAddr::from_abstract_name(format!("evasion-{}", std::process::id()))?;
    let _listener = UnixListener::bind_addr(&address)?;
    UnixStream::connect_addr(&address)?;
    Ok(())
}

fn unix_datagram(place: &Place) -> Result<()> {
    let path = place.new_directory("run")?.join("docker.sock");
    let _receiver = UnixDatagram::bind(&path)?;
    UnixDatagram::unbound()?.send_to(b"FAKE", path)?;
    Ok(())
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!((folded & 0xffff) + (folded >> 16))).to_be_bytes();
    [high, low]
}

/// An IPv4 packet from loopback to loopback with a UDP datagram to `port`.
fn datagram(port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 12, 0, 0]);
    packet.extend(b"FAKE");
    packet
}

fn raw() -> Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    let (packet, address) = (datagram(21030), loopback(0));
    call!(SYS_sendto, socket.as_raw_fd(), packet.as_ptr(), packet.len(), 0, address.as_ptr(), address.len())?;
    Ok(())
}

fn packet() -> Result<()> {
    let receiver = UdpSocket::bind(("127.0.0.1", 21031))?;
    receiver.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    let socket = socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all zeros are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = 0x0800_u16.to_be();
    address.sll_ifindex =
        fs::read_to_string("/sys/class/net/lo/ifindex").map_or(Ok(1), |text| text.trim().parse())?;
    address.sll_halen = 6;
    let packet = datagram(21031);
    let length = size_of_val(&address);
    call!(SYS_sendto, socket.as_raw_fd(), packet.as_ptr(), packet.len(), 0, &raw const address, length)?;
    Ok(())
}

fn icmp() -> Result<()> {
    let range = "/proc/sys/net/ipv4/ping_group_range";
    let allowed = fs::read_to_string(range).unwrap_or_default();
    let kind = if allowed.starts_with("1\t0") { libc::SOCK_RAW } else { libc::SOCK_DGRAM };
    let socket = socket(libc::AF_INET, kind, libc::IPPROTO_ICMP)?;
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
    echo.extend(b"FAKE");
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum);
    let address = loopback(0);
    call!(SYS_sendto, socket.as_raw_fd(), echo.as_ptr(), echo.len(), 0, address.as_ptr(), address.len())?;
    Ok(())
}

fn vsock() -> Result<()> {
    let missing = |error| absent(format!("vsock: {error}"));
    let (listener, client) = (vsock_socket().map_err(missing)?, vsock_socket().map_err(missing)?);
    // VMADDR_CID_LOCAL
    let address = VsockAddr::new(1, 21032);
    call!(SYS_bind, listener.as_raw_fd(), address.as_ptr(), address.len()).map_err(missing)?;
    call!(SYS_listen, listener.as_raw_fd(), 1).map_err(missing)?;
    connect(&client, &address).map_err(missing)?;
    Ok(())
}

fn vsock_socket() -> std::io::Result<OwnedFd> {
    socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
}

fn sctp() -> Result<()> {
    let missing = |error| absent(format!("SCTP: {error}"));
    let make = || socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP);
    let (listener, client) = (make().map_err(missing)?, make().map_err(missing)?);
    let address = loopback(21033);
    call!(SYS_bind, listener.as_raw_fd(), address.as_ptr(), address.len())?;
    call!(SYS_listen, listener.as_raw_fd(), 1)?;
    connect(&client, &address)?;
    let accepted = call!(SYS_accept, listener.as_raw_fd(), 0, 0)?;
    // SAFETY: the kernel has just made it for this process.
    drop(unsafe { OwnedFd::from_raw_fd(i32::try_from(accepted)?) });
    fs::File::from(client).write_all(b"FAKE").context("cannot send")
}
