//! One connection to the collector, from the first batch it does not have until it breaks or the agent ends.

use std::{collections::VecDeque, future::pending, time::Duration};

use buildtrail_evidence::records::RecordIndex;
use buildtrail_proto::v1::{Acknowledgement, SignedBatch, ingest_client::IngestClient};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::voice::Voice;
use crate::{
    error::{printable, with_causes},
    spool::{Outbox, OutboxError, Outgoing},
};

/// Most batches sent and not acknowledged …
const WINDOW_BATCHES: usize = 32;
/// … and most bytes of them.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// How long the collector may take to acknowledge something before the connection counts as broken.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_mins(1);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent ends: everything is delivered, or the time is up.
    Stopped,
    /// It must be tried again.
    Failed(Failure),
}

#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, or it broke.
    Unreachable(String),
    /// The collector does not take a batch; a person has to look.
    Refused(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let refused = matches!(
            status.code(),
            Code::FailedPrecondition
                | Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::AlreadyExists
                | Code::OutOfRange
                | Code::Unimplemented
        );
        if refused {
            return Self::Refused(printable(status.message()));
        }
        let message = printable(status.message());
        Self::Unreachable(if message.is_empty() { format!("{:?}", status.code()) } else { message })
    }
}

/// Sent and not acknowledged.
struct InFlight {
    number: u64,
    index: RecordIndex,
    bytes: usize,
    sent: Instant,
}

pub(super) struct Session {
    endpoint: Endpoint,
    /// Away only while it reads on another thread.
    outbox: Option<Outbox>,
    stopping: watch::Receiver<Option<Instant>>,
    in_flight: VecDeque<InFlight>,
    voice: Voice,
    progress: bool,
    /// The spool has ended: nothing more will come.
    spool_ended: bool,
}

impl Session {
    pub(super) fn new(
        endpoint: Endpoint,
        outbox: Outbox,
        stopping: watch::Receiver<Option<Instant>>,
        voice: Voice,
    ) -> Self {
        let (outbox, in_flight) = (Some(outbox), VecDeque::new());
        Self { endpoint, outbox, stopping, in_flight, voice, progress: false, spool_ended: false }
    }

    /// When the agent must have ended, once that is asked for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.stopping.borrow()
    }

    /// Waits until the agent is asked to end. Cancel safe.
    pub(super) async fn stop_requested(&mut self) {
        stop_requested(&mut self.stopping).await;
    }

    /// Whether the collector acknowledged something since the last call.
    pub(super) fn made_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Remembers what was delivered; whether that is everything.
    pub(super) fn finish(self) -> bool {
        self.outbox.is_some_and(|outbox| {
            outbox.remember();
            outbox.is_delivered()
        })
    }

    /// Connects and delivers until something ends it; tells the operator why.
    pub(super) async fn run(&mut self) -> End {
        let end = match self.connect_and_deliver().await {
            Ok(()) => End::Stopped,
            Err(failure) => End::Failed(failure),
        };
        if let End::Failed(failure) = &end {
            self.voice.tell(failure);
        }
        end
    }

    async fn connect_and_deliver(&mut self) -> Result<(), Failure> {
        self.in_flight.clear();
        if let Some(outbox) = &mut self.outbox {
            outbox.rewind();
        }
        if self.is_done() {
            return Ok(());
        }
        let connecting = self.endpoint.clone();
        tokio::select! {
            connected = connecting.connect() => {
                let channel = connected.map_err(|error| Failure::Unreachable(with_causes(&error)))?;
                self.deliver(IngestClient::new(channel)).await
            }
            () = sleep_until_some(self.deadline()) => Ok(()),
        }
    }

    async fn deliver(&mut self, mut client: IngestClient<Channel>) -> Result<(), Failure> {
        let (sender, receiver) = mpsc::channel(WINDOW_BATCHES);
        let call = client.stream(ReceiverStream::new(receiver));
        tokio::pin!(call);
        let mut replies: Option<Streaming<Acknowledgement>> = None;
        let mut heard = Instant::now();
        loop {
            self.fill(&sender).await?;
            if self.is_done() {
                return Ok(());
            }
            let deadline = self.deadline();
            let overdue = self.in_flight.front().map(|oldest| oldest.sent.max(heard) + ACKNOWLEDGE_TIMEOUT);
            tokio::select! {
                answer = &mut call, if replies.is_none() => {
                    replies = Some(answer?.into_inner());
                    heard = Instant::now();
                }
                reply = next_reply(&mut replies) => {
                    let ended = || Failure::Unreachable("the collector ended the stream".into());
                    self.acknowledge(reply?.ok_or_else(ended)?.number);
                    heard = Instant::now();
                }
                more = changed(&mut self.outbox), if !self.spool_ended => self.spool_ended = !more,
                () = stop_requested(&mut self.stopping), if deadline.is_none() => {}
                () = sleep_until_some(deadline) => return Ok(()),
                () = sleep_until_some(overdue) => {
                    return Err(Failure::Unreachable("the collector does not acknowledge".into()));
                }
            }
        }
    }

    /// The agent ends, and the collector has everything.
    fn is_done(&self) -> bool {
        self.deadline().is_some() && self.outbox.as_ref().is_some_and(Outbox::is_delivered)
    }

    /// Sends as much as may be in flight.
    async fn fill(&mut self, sender: &mpsc::Sender<SignedBatch>) -> Result<(), Failure> {
        while self.has_window() && self.outbox.as_ref().is_some_and(Outbox::has_more) {
            match self.read_next().await? {
                Ok(Some(Outgoing { number, index, batch })) => {
                    let bytes = batch.header.len() + batch.signature.len() + batch.body.len();
                    self.in_flight.push_back(InFlight { number, index, bytes, sent: Instant::now() });
                    // The channel is as long as the window: this waits only for a stream that has ended.
                    if sender.send(batch).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(OutboxError::Records(error)) => {
                    return Err(Failure::Unreachable(format!("the spool cannot be read: {error}")));
                }
                Err(damage) => tracing::error!("{damage}; the collector will refuse what follows"),
            }
        }
        Ok(())
    }

    fn has_window(&self) -> bool {
        let bytes: usize = self.in_flight.iter().map(|batch| batch.bytes).sum();
        self.in_flight.len() < WINDOW_BATCHES && bytes < WINDOW_BYTES
    }

    /// Reads from disk on a thread where waiting is allowed.
    async fn read_next(&mut self) -> Result<Result<Option<Outgoing>, OutboxError>, Failure> {
        let unusable =
            || Failure::Unreachable("the spool's reader ended unexpectedly; restart the agent".into());
        let mut outbox = self.outbox.take().ok_or_else(unusable)?;
        let read = spawn_blocking(move || (outbox.read_next(), outbox)).await;
        let (found, outbox) = read.map_err(|_| unusable())?;
        self.outbox = Some(outbox);
        Ok(found)
    }

    /// Only what was sent can be acknowledged, whatever the collector says.
    fn acknowledge(&mut self, number: u64) {
        let mut last = None;
        while self.in_flight.front().is_some_and(|batch| batch.number <= number) {
            last = self.in_flight.pop_front();
        }
        if let (Some(batch), Some(outbox)) = (last, &mut self.outbox) {
            outbox.acknowledge(batch.index);
            self.progress = true;
            self.voice.delivered();
        }
    }
}

async fn stop_requested(stopping: &mut watch::Receiver<Option<Instant>>) {
    if stopping.wait_for(Option::is_some).await.is_err() {
        pending::<()>().await;
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn next_reply(
    replies: &mut Option<Streaming<Acknowledgement>>,
) -> Result<Option<Acknowledgement>, Status> {
    match replies {
        Some(replies) => replies.message().await,
        None => pending().await,
    }
}

async fn changed(outbox: &mut Option<Outbox>) -> bool {
    match outbox {
        Some(outbox) => outbox.changed().await,
        None => pending().await,
    }
}
