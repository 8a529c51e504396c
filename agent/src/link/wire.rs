//! A TCP connection that keeps to a bandwidth and counts what it sends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Least bytes that are worth a packet.
const PORTION: u64 = 1200;

/// Bytes that were handed to the network.
#[derive(Debug, Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    pub(crate) fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What may be sent now, refilled as time goes by; never more than a quarter of a second's worth, and no less than one
/// portion.
#[derive(Debug)]
struct Budget {
    bytes_per_second: u64,
    available: u64,
    filled: Instant,
    wait: Pin<Box<Sleep>>,
}

impl Budget {
    fn new(bytes_per_second: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second,
            available: PORTION,
            filled: now,
            wait: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.filled);
        let earned = elapsed.as_micros() * u128::from(self.bytes_per_second) / 1_000_000;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        if earned > 0 {
            self.filled = now;
            let most = (self.bytes_per_second / 4).max(PORTION);
            self.available = self.available.saturating_add(earned).min(most);
        }
    }

    fn poll_portion(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        loop {
            self.refill(Instant::now());
            let enough = wanted.min(PORTION);
            if self.available >= enough {
                return Poll::Ready(usize::try_from(wanted.min(self.available)).unwrap_or(usize::MAX));
            }
            let micros = (enough - self.available) * 1_000_000 / self.bytes_per_second + 1;
            self.wait.as_mut().reset(self.filled + Duration::from_micros(micros));
            ready!(self.wait.as_mut().poll(cx));
        }
    }
}

pub(super) struct Wire {
    stream: TcpStream,
    budget: Option<Budget>,
    meter: Arc<Meter>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, bytes_per_second: Option<u64>, meter: Arc<Meter>) -> Self {
        Self { stream, budget: bytes_per_second.map(Budget::new), meter }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = match &mut self.budget {
            Some(budget) => ready!(budget.poll_portion(buf.len(), cx)),
            None => buf.len(),
        };
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..allowed.min(buf.len())]))?;
        if let Some(budget) = &mut self.budget {
            budget.available = budget.available.saturating_sub(written as u64);
        }
        self.meter.0.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_ten_seconds_ten_seconds_worth_is_allowed() {
        let mut budget = Budget::new(8000);
        let (begun, mut sent) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(10) {
            let portion = poll_fn(|cx| budget.poll_portion(100_000, cx)).await as u64;
            budget.available -= portion;
            sent += portion;
        }
        assert!((78_000..=83_000).contains(&sent), "{sent} bytes in {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn everything_passes_a_capped_connection_and_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            received
        });
        let meter = Arc::new(Meter::default());
        let mut wire = Wire::new(TcpStream::connect(address).await.unwrap(), Some(1_000_000), meter.clone());
        let content: Vec<u8> = (0..=255).cycle().take(60_000).collect();
        wire.write_all(&content).await.unwrap();
        wire.shutdown().await.unwrap();
        assert_eq!(receiving.await.unwrap(), content);
        assert_eq!(meter.sent(), 60_000);
    }
}
