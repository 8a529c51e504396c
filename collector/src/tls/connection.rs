//! One connection after its handshake, with an eye on whether anything comes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::places::Stay;
use crate::{
    health::{Health, Refusal},
    peer::{Peer, PeerInfo},
};

/// HTTP/2's preface and an empty settings frame: what every client sends first.
const BEGINNING_BYTES: u64 = 24 + 9;
/// How long the beginning may take …
const BEGINNING_TIME: Duration = Duration::from_secs(10);
/// … and how long a connection may be silent later. Peers are probed more often, so the living are never silent for long.
const SILENCE: Duration = Duration::from_mins(1);
/// The whole life of a connection that is there to enrol or renew, or on which nobody signs in.
const FLEETING_TIME: Duration = Duration::from_secs(30);

/// A TLS connection, its peer, and its place among the allowed ones.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    address: SocketAddr,
    health: Arc<Health>,
    received: u64,
    /// When it is cut off.
    end: Pin<Box<Sleep>>,
    /// HTTP/1.1 knows no probes: whoever takes what we send is alive.
    writes_count: bool,
    stay: Arc<Stay>,
}

impl Connection {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: Arc<Peer>,
        address: SocketAddr,
        health: Arc<Health>,
        stay: Stay,
    ) -> Self {
        let time = if stay.is_lasting() { BEGINNING_TIME } else { FLEETING_TIME };
        let end = Box::pin(tokio::time::sleep(time));
        let writes_count = stream.get_ref().1.alpn_protocol() == Some(b"http/1.1");
        Self { stream, peer, address, health, received: 0, end, writes_count, stay: Arc::new(stay) }
    }

    fn heard(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
        if bytes > 0 && self.received >= BEGINNING_BYTES && self.stay.is_lasting() {
            self.end.as_mut().reset(Instant::now() + SILENCE);
        }
    }

    fn took(&mut self, written: &Poll<io::Result<usize>>) {
        if self.writes_count && self.stay.is_lasting() && matches!(written, Poll::Ready(Ok(1..))) {
            self.end.as_mut().reset(Instant::now() + SILENCE);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo { peer: self.peer.clone(), address: self.address, stay: self.stay.clone() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            let what =
                if self.received < BEGINNING_BYTES { "says nothing" } else { "is silent, or stays too long" };
            self.health.refuse(Refusal::Stalled, format_args!("{} at {}", self.peer, self.address), what);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.took(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.took(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
