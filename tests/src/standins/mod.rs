//! Stand-ins for what a build talks to: name server, package registry, statsd, cloud metadata service.
//!
//! In: a directory for the resolver's configuration. Out: a process whose network and mount namespaces hold all of
//! them on their real addresses and ports; others enter these namespaces to meet them. Nothing of the machine
//! changes, and all is gone with the process. Must never be run outside namespaces of its own.

mod dns;
mod metadata;

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    paths,
    process::{Launch, Running},
};

/// Where the names under `example.test` lead.
pub const REGISTRY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 10);
/// The cloud metadata service's address.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The address in the private `/etc/resolv.conf`.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// An address of the documentation prefix: without one that is not loopback, the resolver asks for no v6 addresses.
const GLOBAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// How long a peer may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is printed once everything listens.
const READY: &str = "ready";

/// The stand-ins, running.
#[derive(Debug)]
pub struct Standins {
    running: Running,
}

impl Standins {
    /// Starts them and waits until they listen. `directory` gets their files and logs.
    ///
    /// # Errors
    /// When the namespaces cannot be made (that needs root) or an address cannot be used.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut running =
            Launch::new("standins", paths::binary("standins")?, directory).arg(directory).spawn()?;
        let output = running.stdout().to_owned();
        running.wait_until("all stand-ins to listen", Duration::from_secs(20), || {
            fs::read_to_string(&output).is_ok_and(|text| text.trim() == READY)
        })?;
        Ok(Self { running })
    }

    /// Process whose network and mount namespaces hold the stand-ins.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// Makes the namespaces, serves in them until killed.
///
/// # Errors
/// When a namespace, a mount or an address cannot be had.
pub fn serve(directory: &Path) -> Result<()> {
    enter_own_namespaces()?;
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{METADATA}/32"), "dev", "lo"])?;
    ip(&["address", "add", &format!("{GLOBAL_V6}/128"), "dev", "lo", "nodad"])?;
    replace_resolver(directory)?;

    let tcp = [
        SocketAddr::new(REGISTRY.into(), 8443),
        SocketAddr::new(REGISTRY.into(), 8445),
        SocketAddr::new(REGISTRY.into(), 8446),
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 8444),
    ];
    for address in tcp {
        listen(address, drain)?;
    }
    listen(SocketAddr::new(METADATA.into(), 80), metadata::serve)?;
    let statsd = bind_udp(Ipv4Addr::LOCALHOST.into(), 8125)?;
    thread::spawn(move || while statsd.recv(&mut [0; 512]).is_ok() {});
    let names = bind_udp(RESOLVER.into(), 53)?;
    thread::spawn(move || dns::serve(&names));

    listen(SocketAddr::new(RESOLVER.into(), 53), dns::serve_stream)?;

    announce();
    loop {
        thread::park();
    }
}

#[expect(clippy::print_stdout, reason = "the line that whoever started the stand-ins waits for")]
fn announce() {
    println!("{READY}");
}

fn enter_own_namespaces() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("cannot make network and mount namespaces: run as root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot make the mounts of the new namespace private")
}

fn replace_resolver(directory: &Path) -> Result<()> {
    let ours: PathBuf = directory.join("resolv.conf");
    fs::write(&ours, format!("nameserver {RESOLVER}\noptions timeout:1 attempts:2\n"))
        .with_context(|| format!("cannot write {}", ours.display()))?;
    mount(Some(&ours), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("cannot mount a private /etc/resolv.conf: does the machine have that file?")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("cannot run `ip`: install iproute2 (`cargo xtask setup` does)")?;
    if !status.success() {
        bail!("`ip {}` failed with {status}", arguments.join(" "));
    }
    Ok(())
}

fn listen(address: SocketAddr, serve: fn(TcpStream)) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if stream.set_read_timeout(Some(PATIENCE)).is_ok() {
                serve(stream);
            }
        }
    });
    Ok(())
}

fn bind_udp(address: IpAddr, port: u16) -> Result<UdpSocket> {
    UdpSocket::bind((address, port)).with_context(|| format!("cannot receive on {address} port {port}"))
}

/// Reads a little of what the peer says, and hangs up.
fn drain(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1024]);
}
