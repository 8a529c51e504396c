//! A network that fails: a proxy between agent and collector that is slow, goes silent, or hangs up, as it is told.
//!
//! In: connections to its own loopback port. Out: the same bytes at the target, late or never. Must never alter a byte.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How the network behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// It works.
    Open = 0,
    /// 64 kbit/s in each direction.
    Slow = 1,
    /// Connections stay and nothing moves: neither end is told.
    HalfOpen = 2,
    /// Connections are closed, new ones too.
    Closed = 3,
}

const SLOW_BYTES_PER_SECOND: u32 = 64_000 / 8;
const CHUNK: usize = 512;
/// How often a waiting connection looks whether the mode has changed.
const TICK: Duration = Duration::from_millis(10);

/// A proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicU64>,
    mode: Arc<AtomicU8>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts a proxy to `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (mode, ended) = (Arc::new(AtomicU8::new(Mode::Open as u8)), Arc::new(AtomicBool::new(false)));
        let (path, connections) =
            (Path { mode: mode.clone(), ended: ended.clone() }, Arc::new(AtomicU64::new(0)));
        let accepted = connections.clone();
        thread::spawn(move || accept(&listener, target, &path, &accepted));
        Ok(Self { address, connections, mode, ended })
    }

    /// Connections that were made through it.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Changes how the network behaves, for connections that are there too.
    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Path {
    mode: Arc<AtomicU8>,
    ended: Arc<AtomicBool>,
}

impl Path {
    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }

    fn is_over(&self) -> bool {
        self.is(Mode::Closed) || self.ended.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, path: &Path, accepted: &AtomicU64) {
    while !path.ended.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((from, _)) if !path.is_over() => {
                accepted.fetch_add(1, Ordering::SeqCst);
                // A target that is away: the connection ends, as it would without a proxy.
                if let Ok(to) = TcpStream::connect(target) {
                    carry_both_ways(&from, &to, path);
                }
            }
            Ok(_) => {}
            Err(_) => thread::sleep(TICK),
        }
    }
}

fn carry_both_ways(from: &TcpStream, to: &TcpStream, path: &Path) {
    for (source, sink) in [(from, to), (to, from)] {
        let (Ok(source), Ok(sink)) = (source.try_clone(), sink.try_clone()) else { return };
        let path = path.clone();
        thread::spawn(move || carry(source, sink, &path));
    }
}

fn carry(mut source: TcpStream, mut sink: TcpStream, path: &Path) {
    let _ = source.set_nonblocking(false);
    let _ = source.set_read_timeout(Some(TICK));
    let mut buffer = [0; 16 * 1024];
    while !path.is_over() {
        if path.is(Mode::HalfOpen) {
            thread::sleep(TICK);
            continue;
        }
        let chunk = if path.is(Mode::Slow) { CHUNK } else { buffer.len() };
        let begun = Instant::now();
        match source.read(&mut buffer[..chunk]) {
            Ok(0) => break,
            Ok(length) => {
                while path.is(Mode::HalfOpen) && !path.is_over() {
                    thread::sleep(TICK);
                }
                if path.is_over() || sink.write_all(&buffer[..length]).is_err() {
                    break;
                }
                if path.is(Mode::Slow) {
                    let takes =
                        Duration::from_secs(u64::try_from(length).unwrap_or(0)) / SLOW_BYTES_PER_SECOND;
                    thread::sleep(takes.saturating_sub(begun.elapsed()));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = source.shutdown(std::net::Shutdown::Both);
    let _ = sink.shutdown(std::net::Shutdown::Both);
}
