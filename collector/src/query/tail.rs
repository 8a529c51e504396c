//! Live events for one reader.

use std::{sync::Arc, time::Duration};

use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::Compiled;
use tokio::sync::{OwnedSemaphorePermit, broadcast, broadcast::error::RecvError, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    access::Person,
    health::{Health, Refusal},
};

/// Events that wait for this reader's network.
const UNREAD: usize = 64;
/// How long a reader may take for one event.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Tail {
    pub(super) search: Compiled,
    pub(super) events: broadcast::Receiver<Arc<AuditEvent>>,
    pub(super) reader: Person,
    pub(super) health: Arc<Health>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) _place: OwnedSemaphorePermit,
}

type Out = mpsc::Sender<Result<AuditEvent, Status>>;

impl Tail {
    pub(super) fn start(self) -> ReceiverStream<Result<AuditEvent, Status>> {
        let (out, stream) = mpsc::channel(UNREAD);
        tokio::spawn(self.run(out));
        ReceiverStream::new(stream)
    }

    async fn run(mut self, out: Out) {
        if let Err(status) = self.forward(&out).await {
            // A reader that still does not read does not learn the reason.
            let _ = out.send_timeout(Err(status), PATIENCE).await;
        }
    }

    /// Ends with `Ok` when the reader goes away.
    async fn forward(&mut self, out: &Out) -> Result<(), Status> {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = out.closed() => return Ok(()),
                _ = self.stopping.wait_for(|stopping| *stopping) => {
                    return Err(Status::unavailable("the collector is stopping; tail again later"));
                }
            };
            match event {
                Ok(event) if self.reader.scope.allows(&event) && self.search.matches(&event) => {
                    match out.send_timeout(Ok(event.as_ref().clone()), PATIENCE).await {
                        Ok(()) => {}
                        Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                        Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                            return Err(self.too_slow("an event"));
                        }
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(skipped)) => return Err(self.too_slow(&format!("{skipped} events"))),
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    fn too_slow(&self, skipped: &str) -> Status {
        self.health.refuse(Refusal::SlowReader, &self.reader, skipped);
        Status::data_loss(format!(
            "this tail was read too slowly and {skipped} had to be skipped; they are stored: list them, narrow the \
             filter and tail again"
        ))
    }
}
