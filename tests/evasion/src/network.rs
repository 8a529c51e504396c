//! Ways to connect and to send, to listeners on loopback.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::net::UnixStream,
};

use anyhow::{Result, ensure};
use nix::{
    libc,
    sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike},
};

use crate::{
    call::{self, absent, own},
    expect::{Event, Family, Match, Match::Is, Match::Number, Match::True, Seen, Technique},
    place::Place,
    ring::{self, Request, Ring},
};

/// A connection as it is told.
macro_rules! connection {
    ($protocol:literal $address:literal $port:literal $(, $field:literal $expected:expr)*) => {
        Event {
            body: "connection_opened",
            fields: &[
                ("protocol", Is(concat!("PROTOCOL_", $protocol))),
                ("remote_address", Is($address)),
                ("remote_port", Number($port)),
                $(($field, $expected),)*
            ],
        }
    };
}

/// A connection's end as it is told.
macro_rules! closed {
    ($result:literal $port:literal $(, $field:literal $expected:expr)*) => {
        Event {
            body: "connection_closed",
            fields: &[
                ("result", Is(concat!("CONNECTION_RESULT_", $result))),
                ("remote_port", Number($port)),
                $(($field, $expected),)*
            ],
        }
    };
}

/// Seen alike at both tiers.
pub(crate) const fn net(
    name: &'static str,
    what: &'static str,
    run: fn(&Place) -> Result<()>,
    events: &'static [Event],
) -> Technique {
    Technique {
        name,
        family: Family::Network,
        what,
        run,
        a: Seen::Told(events),
        b: Seen::Told(events),
        never: &[],
    }
}

pub(crate) const TECHNIQUES: &[Technique] = &[
    net(
        "tcp4",
        "TCP over IPv4",
        |_| tcp(V4, 21001),
        &[connection!("TCP" "127.0.0.1" 21001), closed!("CLOSED" 21001, "duration_ns" Match::Some)],
    ),
    net("tcp6", "TCP over IPv6", |_| tcp(V6, 21002), &[connection!("TCP" "::1" 21002)]),
    net(
        "tcp-mapped",
        "TCP to a v4 address written as v6",
        |_| mapped(21003),
        &[connection!("TCP" "127.0.0.1" 21003)],
    ),
    net(
        "tcp-nonblocking",
        "connect that does not wait",
        |_| nonblocking(21004),
        &[connection!("TCP" "127.0.0.1" 21004)],
    ),
    net("tcp-io-uring", "connect by io_uring", |_| by_ring(21005), &[connection!("TCP" "127.0.0.1" 21005)]),
    net(
        "tcp-fast-open",
        "TCP Fast Open: sendto with the first data",
        |_| fast_open(21006),
        &[connection!("TCP" "127.0.0.1" 21006)],
    ),
    net("mptcp", "Multipath TCP", |_| mptcp(21007), &[connection!("TCP" "127.0.0.1" 21007)]),
    net(
        "tcp-refused",
        "connect that is refused",
        |_| refused(21008),
        &[connection!("TCP" "127.0.0.1" 21008), closed!("REFUSED" 21008, "error" Number(111))],
    ),
    net(
        "tcp-int80",
        "connect by the 32-bit system call (int 0x80)",
        |_| int80(21009),
        &[connection!("TCP" "127.0.0.1" 21009)],
    ),
    net(
        "udp4",
        "UDP over IPv4, connected",
        |_| udp(V4, 21010, true),
        &[connection!("UDP" "127.0.0.1" 21010)],
    ),
    net("udp6", "UDP over IPv6, connected", |_| udp(V6, 21011, true), &[connection!("UDP" "::1" 21011)]),
    net(
        "udp4-sendto",
        "sendto over IPv4, not connected",
        |_| udp(V4, 21012, false),
        &[connection!("UDP" "127.0.0.1" 21012, "unconnected" True)],
    ),
    net(
        "udp6-sendto",
        "sendto over IPv6, not connected",
        |_| udp(V6, 21013, false),
        &[connection!("UDP" "::1" 21013, "unconnected" True)],
    ),
    net(
        "udp-sendmsg",
        "sendmsg, not connected",
        |_| messages(21014, false),
        &[connection!("UDP" "127.0.0.1" 21014, "unconnected" True)],
    ),
    net(
        "udp-sendmmsg",
        "sendmmsg, not connected",
        |_| messages(21015, true),
        &[connection!("UDP" "127.0.0.1" 21015, "unconnected" True)],
    ),
    net(
        "udp-mapped",
        "datagram to a v4 address written as v6",
        |_| udp_mapped(21016),
        &[connection!("UDP" "127.0.0.1" 21016, "unconnected" True)],
    ),
    net(
        "udp-io-uring",
        "sendmsg by io_uring",
        |_| udp_by_ring(21017),
        &[connection!("UDP" "127.0.0.1" 21017, "unconnected" True)],
    ),
    net(
        "socket-inherited",
        "connected socket used by another program",
        inherited,
        &[connection!("TCP" "127.0.0.1" 21018), connection!("TCP" "127.0.0.1" 21018, "taken_over" True)],
    ),
    net(
        "socket-passed",
        "connected socket passed to another program",
        passed,
        &[connection!("TCP" "127.0.0.1" 21019), connection!("TCP" "127.0.0.1" 21019, "taken_over" True)],
    ),
];

const V4: std::net::IpAddr = std::net::IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: std::net::IpAddr = std::net::IpAddr::V6(Ipv6Addr::LOCALHOST);

fn tcp(address: std::net::IpAddr, port: u16) -> Result<()> {
    let listener = TcpListener::bind((address, port))?;
    TcpStream::connect((address, port))?;
    listener.accept()?;
    Ok(())
}

fn refused(port: u16) -> Result<()> {
    ensure!(TcpStream::connect((V4, port)).is_err(), "somebody listens there");
    Ok(())
}

fn mapped(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    TcpStream::connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port))?;
    listener.accept()?;
    Ok(())
}

pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let descriptor = call!(SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol)?;
    own(descriptor).map_err(io::Error::other)
}

pub(crate) fn loopback(port: u16) -> SockaddrIn {
    SockaddrIn::new(127, 0, 0, 1, port)
}

pub(crate) fn connect(socket: &OwnedFd, address: &impl SockaddrLike) -> io::Result<()> {
    call!(SYS_connect, socket.as_raw_fd(), address.as_ptr(), address.len()).map(drop)
}

fn nonblocking(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    if let Err(error) = connect(&socket, &loopback(port)) {
        ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
    }
    listener.accept()?;
    Ok(())
}

fn by_ring(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = loopback(port);
    Ring::new(0)?.request(Request {
        operation: ring::CONNECT,
        flags: ring::ASYNC,
        descriptor: socket.as_raw_fd(),
        address: address.as_ptr() as u64,
        offset: u64::from(address.len()),
        ..Request::default()
    })?;
    listener.accept()?;
    Ok(())
}

fn fast_open(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = loopback(port);
    let text = b"FAKE";
    call!(
        SYS_sendto,
        socket.as_raw_fd(),
        text.as_ptr(),
        text.len(),
        libc::MSG_FASTOPEN,
        address.as_ptr(),
        address.len()
    )
    .map_err(|error| absent(format!("TCP Fast Open: {error}")))?;
    listener.accept()?;
    Ok(())
}

fn mptcp(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
        .map_err(|error| absent(format!("Multipath TCP: {error}")))?;
    connect(&socket, &loopback(port))?;
    listener.accept()?;
    Ok(())
}

fn int80(port: u16) -> Result<()> {
    let listener = TcpListener::bind((V4, port))?;
    let socket = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = loopback(port);
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: a new mapping, larger than the address.
    let low = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    call::checked(if low == libc::MAP_FAILED { -1 } else { 0 })?;
    let result: i64;
    // SAFETY: the copy fits the mapping; call 362 is connect(socket, address, length).
    unsafe {
        std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), low.cast(), address.len() as usize);
        std::arch::asm!(
            "push rbx", "mov rbx, {socket}", "int 0x80", "pop rbx",
            socket = in(reg) i64::from(socket.as_raw_fd()),
            inlateout("rax") 362_i64 => result,
            in("rcx") low, in("rdx") i64::from(address.len()),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    ensure!(result.trailing_zeros() >= 32, "the 32-bit connect failed with {result:#x}");
    listener.accept()?;
    Ok(())
}

fn udp(address: std::net::IpAddr, port: u16, connected: bool) -> Result<()> {
    let receiver = UdpSocket::bind((address, port))?;
    let sender = UdpSocket::bind((address, 0))?;
    if connected {
        sender.connect((address, port))?;
        sender.send(b"FAKE")?;
    } else {
        sender.send_to(b"FAKE", (address, port))?;
    }
    receiver.recv(&mut [0; 8])?;
    Ok(())
}

fn udp_mapped(port: u16) -> Result<()> {
    let receiver = UdpSocket::bind((V4, port))?;
    let sender = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let SocketAddr::V6(address) = address else { return Ok(()) };
    let address = SockaddrIn6::from(address);
    call!(SYS_sendto, sender.as_raw_fd(), b"FAKE".as_ptr(), 4, 0, address.as_ptr(), address.len())?;
    receiver.recv(&mut [0; 8])?;
    Ok(())
}

/// A message with its address, and what it points to.
struct Message {
    address: SockaddrIn,
    vector: libc::iovec,
}

impl Message {
    fn new(port: u16) -> Self {
        let vector = libc::iovec { iov_base: b"FAKE".as_ptr().cast_mut().cast(), iov_len: 4 };
        Self { address: loopback(port), vector }
    }

    fn header(&mut self) -> libc::msghdr {
        // SAFETY: all zeros are a valid header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = self.address.as_ptr().cast_mut().cast();
        header.msg_namelen = self.address.len();
        header.msg_iov = &raw mut self.vector;
        header.msg_iovlen = 1;
        header
    }
}

fn messages(port: u16, many: bool) -> Result<()> {
    let receiver = UdpSocket::bind((V4, port))?;
    let sender = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut message = Message::new(port);
    let header = message.header();
    if many {
        let mut headers = [libc::mmsghdr { msg_hdr: header, msg_len: 0 }; 2];
        call!(SYS_sendmmsg, sender.as_raw_fd(), headers.as_mut_ptr(), 2, 0)?;
    } else {
        call!(SYS_sendmsg, sender.as_raw_fd(), &raw const header, 0)?;
    }
    receiver.recv(&mut [0; 8])?;
    Ok(())
}

fn udp_by_ring(port: u16) -> Result<()> {
    let receiver = UdpSocket::bind((V4, port))?;
    let sender = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut message = Message::new(port);
    let header = message.header();
    Ring::new(0)?.request(Request {
        operation: ring::SENDMSG,
        flags: ring::ASYNC,
        descriptor: sender.as_raw_fd(),
        address: &raw const header as u64,
        length: 1,
        ..Request::default()
    })?;
    receiver.recv(&mut [0; 8])?;
    Ok(())
}

fn inherited(place: &Place) -> Result<()> {
    let listener = TcpListener::bind((V4, 21018))?;
    let stream = TcpStream::connect((V4, 21018))?;
    call::inheritable(&stream)?;
    let status = place.reader().args(["send", &stream.as_raw_fd().to_string()]).status()?;
    ensure!(status.success(), "the sender ended with {status}");
    listener.accept()?;
    Ok(())
}

fn passed(place: &Place) -> Result<()> {
    let listener = TcpListener::bind((V4, 21019))?;
    let stream = TcpStream::connect((V4, 21019))?;
    let (ours, theirs) = UnixStream::pair()?;
    call::inheritable(&theirs)?;
    let mut sender = place.reader().args(["send-received", &theirs.as_raw_fd().to_string()]).spawn()?;
    call::send(&ours, &stream)?;
    let status = sender.wait()?;
    ensure!(status.success(), "the sender ended with {status}");
    listener.accept()?;
    Ok(())
}
