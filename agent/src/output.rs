//! Where finished events go: into the spool on their way to a collector, or to standard output as JSON lines.
//!
//! Neither ever makes the sensor wait; what cannot be taken is counted.

use std::{
    io::{self, BufWriter, Write},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use buildtrail_proto::v1::AuditEvent;
use tracing::error;

use crate::{job::HostIdentity, spool::SpoolHandle};

/// Events that may wait for whoever reads standard output.
const QUEUE_EVENTS: usize = 65_536;

/// A destination for events.
pub enum Output {
    /// On the way to a collector.
    Spool(SpoolHandle),
    /// To standard output.
    Json(JsonOutput),
}

impl Output {
    /// Hands over an event without host, boot and sequence. Never waits.
    pub fn push(&self, event: AuditEvent) {
        match self {
            Self::Spool(spool) => spool.push(event),
            Self::Json(json) => json.push(event),
        }
    }

    /// Adds to the number of events lost in the kernel that batch headers state.
    pub fn count_lost_in_kernel(&self, events: u64) {
        if let Self::Spool(spool) = self {
            spool.count_lost_in_kernel(events);
        }
    }

    /// Events lost since the last call that nobody else reports.
    #[must_use]
    pub fn take_unreported_loss(&self) -> u64 {
        match self {
            // The spool reports its own.
            Self::Spool(_) => 0,
            Self::Json(json) => json.lost.swap(0, Ordering::Relaxed),
        }
    }

    /// Events lost since start that the output has reported by itself.
    #[must_use]
    pub fn reported_loss(&self) -> u64 {
        match self {
            Self::Spool(spool) => {
                let stats = spool.stats();
                stats.lost_events + stats.given_up_events
            }
            Self::Json(_) => 0,
        }
    }

    /// Bytes that wait on disk.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        match self {
            Self::Spool(spool) => spool.stats().bytes,
            Self::Json(_) => 0,
        }
    }

    /// Writes out what still waits in memory. The spool has its own end, after the last event.
    pub fn finish(self) {
        if let Self::Json(json) = self {
            json.finish();
        }
    }
}

/// Writes events as JSON lines on a thread of its own.
pub struct JsonOutput {
    queue: SyncSender<Box<AuditEvent>>,
    lost: AtomicU64,
    thread: JoinHandle<()>,
}

impl JsonOutput {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(host: HostIdentity, target: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, receiver) = sync_channel(QUEUE_EVENTS);
        let writer = thread::Builder::new().name("json".into()).spawn(move || {
            if let Err(error) = write_all(&host, &receiver, target) {
                // Whoever read the output is gone; the queue fills and then counts.
                error!(%error, "standard output cannot be written; events are lost from here on");
            }
        })?;
        Ok(Self { queue, lost: AtomicU64::new(0), thread: writer })
    }

    fn push(&self, event: AuditEvent) {
        if self.queue.try_send(Box::new(event)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn finish(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            error!("the thread that writes JSON ended unexpectedly");
        }
    }
}

fn write_all(host: &HostIdentity, queue: &Receiver<Box<AuditEvent>>, target: impl Write) -> io::Result<()> {
    let mut target = BufWriter::new(target);
    let mut sequence = 0;
    loop {
        let mut event = match queue.try_recv() {
            Ok(event) => event,
            Err(TryRecvError::Disconnected) => return target.flush(),
            Err(TryRecvError::Empty) => {
                target.flush()?;
                let Ok(event) = queue.recv() else { return Ok(()) };
                event
            }
        };
        sequence += 1;
        event.host_id = host.host_id.to_string();
        event.boot_id = host.boot_id.to_string();
        event.sequence = sequence;
        serde_json::to_writer(&mut target, &event)?;
        target.write_all(b"\n")?;
    }
}

/// What was written, for tests to read.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Written {
    /// The events, one a line.
    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[cfg(test)]
impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use buildtrail_evidence::id::{BootId, HostId};

    use super::*;

    #[test]
    fn every_event_is_one_numbered_line() {
        let host =
            HostIdentity { host_id: HostId::parse("h").unwrap(), boot_id: BootId::parse("b").unwrap() };
        let target = Written::default();
        let output = JsonOutput::start(host, target.clone()).unwrap();
        for _ in 0..3 {
            output.push(AuditEvent::default());
        }
        output.finish();
        let events = target.events();
        let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(events[0].host_id, "h");
    }
}
