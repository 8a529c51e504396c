//! One connection to the collector, from the first batch it does not have until it breaks or the agent ends.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use buildtrail_evidence::{id::BootId, records::RecordIndex};
use buildtrail_proto::v1::{
    Acknowledgement, AnswerRequest, RenewResponse, SignedBatch, enrolment_client::EnrolmentClient,
    ingest_client::IngestClient,
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, codec::CompressionEncoding, transport::Channel};

use super::{
    Change, Voice,
    identity::Proofs,
    renewal::{self, Present},
};
use crate::{
    config::Config,
    enrol::{Credentials, Reason},
    error::printable,
    host,
    link::{Link, Meter, Route},
    spool::{Outbox, OutboxError, Outgoing},
};

/// Most batches sent and not acknowledged …
const WINDOW_BATCHES: usize = 32;
/// … and most bytes of them.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// How long the collector may take to acknowledge something before the connection counts as broken …
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_mins(1);
/// … unless the network took this many bytes meanwhile: then it is slow. Probes alone are far less.
const PROGRESS_BYTES: u64 = 4096;
/// Most time for the answer to a challenge.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent ends: everything is delivered, or the time is up.
    Stopped,
    /// It goes on, with a new certificate.
    Again,
    /// It must be tried again.
    Failed(Failure),
}

#[derive(Debug)]
pub(super) enum Failure {
    /// No connection, or it broke.
    Unreachable(String),
    /// The collector does not take a batch; a person has to look.
    Refused(String),
    /// The collector does not take this host any more.
    Identity(Reason),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if let Some(reason) = Reason::of(&status) {
            return Self::Identity(reason);
        }
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

/// What a session carries away.
pub(super) struct Work {
    pub(super) outbox: Outbox,
    pub(super) proofs: Proofs,
}

pub(super) struct Session {
    route: Route,
    present: Present,
    /// Metadata of every stream.
    boot: String,
    machine: String,
    meter: Arc<Meter>,
    changed: watch::Sender<Option<Change>>,
    /// Away only while it reads on another thread.
    outbox: Option<Outbox>,
    proofs: Proofs,
    stopping: watch::Receiver<Option<Instant>>,
    in_flight: VecDeque<InFlight>,
    voice: Voice,
    progress: bool,
    /// The spool has ended: nothing more will come.
    spool_ended: bool,
}

impl Session {
    pub(super) fn new(
        route: Route,
        config: Config,
        credentials: Credentials,
        boot_id: &BootId,
        Work { outbox, proofs }: Work,
        stopping: watch::Receiver<Option<Instant>>,
        changed: watch::Sender<Option<Change>>,
    ) -> Self {
        Self {
            voice: Voice::new(config.collector.addresses.join(", ")),
            boot: boot_id.to_string(),
            machine: host::machine(credentials.public()),
            present: Present::new(credentials, config),
            route,
            meter: Arc::default(),
            changed,
            outbox: Some(outbox),
            proofs,
            stopping,
            in_flight: VecDeque::new(),
            progress: false,
            spool_ended: false,
        }
    }

    /// When the agent must have ended, once that is asked for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        *self.stopping.borrow()
    }

    /// Whether somebody enrolled this host meanwhile.
    pub(super) fn has_new_identity(&self) -> bool {
        self.present.is_replaced()
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
        let failure = match self.connect_and_deliver().await {
            Ok(end) => return end,
            Err(failure) => failure,
        };
        self.voice.tell(&failure);
        if let Failure::Identity(reason) = &failure {
            self.changed.send_replace(Some(Change::Refused(*reason)));
        }
        End::Failed(failure)
    }

    async fn connect_and_deliver(&mut self) -> Result<End, Failure> {
        self.in_flight.clear();
        if let Some(outbox) = &mut self.outbox {
            outbox.rewind();
        }
        if self.is_done() {
            return Ok(End::Stopped);
        }
        if let Some(change) = self.present.refresh() {
            self.changed.send_replace(Some(change));
        }
        let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(printable(&error.to_string()));
        let trust = self.present.credentials.trust().map_err(|error| unreachable(&error))?;
        let deadline = self.deadline();
        let link = tokio::select! {
            connected = self.route.connect(&trust, &self.meter) => connected.map_err(|error| unreachable(&error))?,
            () = sleep_until_some(deadline) => return Ok(End::Stopped),
        };
        if self.present.must_renew() {
            let renewed = renewal::renew(link.channel).await?;
            self.present.take(renewed).map_err(|error| unreachable(&error))?;
            return Ok(End::Again);
        }
        match self.deliver(link).await {
            Err(Failure::Identity(Reason::Expired)) if self.present.refused_as_expired() => Ok(End::Again),
            end => end,
        }
    }

    async fn deliver(&mut self, link: Link) -> Result<End, Failure> {
        let (sender, receiver) = mpsc::channel(WINDOW_BATCHES);
        let mut client = IngestClient::new(link.channel.clone()).send_compressed(CompressionEncoding::Zstd);
        let call = client.stream(self.greeting(ReceiverStream::new(receiver))?);
        tokio::pin!(call);
        let mut replies: Option<Streaming<Acknowledgement>> = None;
        let mut renewal: Option<Renewal> = None;
        let mut renewed = false;
        let mut heard = Instant::now();
        let mut sent = self.meter.sent();
        loop {
            if !renewed {
                self.fill(&sender).await?;
            } else if self.in_flight.is_empty() {
                return Ok(End::Again);
            }
            if self.is_done() {
                return Ok(End::Stopped);
            }
            let deadline = self.deadline();
            let overdue = self.in_flight.front().map(|oldest| oldest.sent.max(heard) + ACKNOWLEDGE_TIMEOUT);
            let look = if renewed || renewal.is_some() { None } else { self.present.next_look() };
            tokio::select! {
                answer = &mut call, if replies.is_none() => {
                    replies = Some(answer?.into_inner());
                    heard = Instant::now();
                }
                reply = next_reply(&mut replies) => {
                    let ended = || Failure::Unreachable("the collector ended the stream".into());
                    let reply = reply?.ok_or_else(ended)?;
                    if !reply.challenge.is_empty() {
                        answer(link.channel.clone(), reply.challenge);
                    }
                    self.acknowledge(reply.number, &link.address);
                    heard = Instant::now();
                }
                more = changed(&mut self.outbox), if !self.spool_ended => self.spool_ended = !more,
                () = sleep_until_some(look) => {
                    if self.present.is_due() {
                        renewal = Some(Box::pin(renewal::renew(link.channel.clone())));
                    }
                }
                claimed = self.proofs.next() => self.proofs.send(link.channel.clone(), claimed),
                answer = finished(&mut renewal) => {
                    renewal = None;
                    renewed = self.keep_renewed(answer)?;
                }
                () = stop_requested(&mut self.stopping), if deadline.is_none() => {}
                () = sleep_until_some(deadline) => return Ok(End::Stopped),
                () = sleep_until_some(overdue) => {
                    if self.meter.sent() < sent + PROGRESS_BYTES {
                        return Err(Failure::Unreachable("the collector does not acknowledge".into()));
                    }
                    sent = self.meter.sent();
                    heard = Instant::now();
                }
            }
        }
    }

    fn greeting<S>(&self, batches: S) -> Result<Request<S>, Failure> {
        let mut request = Request::new(batches);
        for (name, value) in [("buildtrail-boot", &self.boot), ("buildtrail-machine", &self.machine)] {
            let value = value.parse().map_err(|_| Failure::Unreachable(format!("{name} cannot be sent")))?;
            request.metadata_mut().insert(name, value);
        }
        Ok(request)
    }

    /// Whether there is a new certificate.
    fn keep_renewed(&mut self, answer: Result<RenewResponse, Status>) -> Result<bool, Failure> {
        match answer {
            Ok(answer) => match self.present.take(answer) {
                Ok(()) => return Ok(true),
                Err(error) => self.present.failed(&error),
            },
            Err(status) => match Failure::from(status) {
                failure @ Failure::Identity(_) => return Err(failure),
                Failure::Unreachable(why) | Failure::Refused(why) => self.present.failed(&why),
            },
        }
        Ok(false)
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
                Err(damage) => tracing::error!("{damage}; the collector is told that it is lost"),
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
    fn acknowledge(&mut self, number: u64, address: &str) {
        let mut last = None;
        while self.in_flight.front().is_some_and(|batch| batch.number <= number) {
            last = self.in_flight.pop_front();
        }
        if let (Some(batch), Some(outbox)) = (last, &mut self.outbox) {
            outbox.acknowledge(batch.index);
            self.progress = true;
            self.voice.delivered(address);
        }
    }
}

type Renewal = Pin<Box<dyn Future<Output = Result<RenewResponse, Status>> + Send>>;

async fn finished(renewal: &mut Option<Renewal>) -> Result<RenewResponse, Status> {
    match renewal {
        Some(renewal) => renewal.await,
        None => pending().await,
    }
}

/// Tells the collector that this end is there. If that fails, it takes this end for gone and the stream breaks.
fn answer(channel: Channel, challenge: Vec<u8>) {
    tokio::spawn(async move {
        let mut client = EnrolmentClient::new(channel);
        let answered = client.answer(AnswerRequest { challenge });
        if !matches!(tokio::time::timeout(ANSWER_TIME, answered).await, Ok(Ok(_))) {
            tracing::debug!("the collector asked whether this end is there, and did not take the answer");
        }
    });
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
