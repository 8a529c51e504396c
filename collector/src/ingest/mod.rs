//! Ingest: the streams of the hosts.
//!
//! In: signed batches. Out: acknowledgements, in order, each after its batch is on disk. The first batch that is refused
//! ends its stream with a status that says why; so does the end of the host's certificate, by date or by order.
//! Must never let one stream hold up another.

use std::sync::Arc;

use buildtrail_evidence::{
    batch::{self, OpenedBatch},
    chain::ChainError,
};
use buildtrail_proto::v1::{Acknowledgement, SignedBatch, ingest_server::Ingest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    enrol::{self, Enrolment, Reason, Session, refuse},
    health::{Health, Refusal},
    ledger::{Answer, Ledger, LedgerError},
    peer::{self, Host},
};

/// Batches of one stream that may wait for the disk.
const IN_FLIGHT: usize = 16;
/// Acknowledgements of one stream that may wait for the network.
const UNREAD: usize = 64;

/// The gRPC service.
pub(crate) struct Service {
    pub(crate) ledger: Ledger,
    pub(crate) enrolment: Enrolment,
    pub(crate) health: Arc<Health>,
    pub(crate) stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Ingest for Service {
    type StreamStream = ReceiverStream<Result<Acknowledgement, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<SignedBatch>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let host = peer::host(&request, &self.health)?;
        let hello = enrol::hello(&request)?;
        let (pending, waiting) = mpsc::channel(IN_FLIGHT);
        let (acknowledged, out) = mpsc::channel(UNREAD);
        let address = peer::address(&request);
        let session = self.enrolment.admit(&host, hello, address, acknowledged.clone()).await?;
        let intake = Intake {
            host: host.clone(),
            ledger: self.ledger.clone(),
            health: self.health.clone(),
            stopping: self.stopping.clone(),
            session,
        };
        tokio::spawn(intake.run(request.into_inner(), pending));
        tokio::spawn(acknowledge(host, waiting, acknowledged, self.health.clone()));
        Ok(Response::new(ReceiverStream::new(out)))
    }
}

/// What the acknowledging side waits for, in the order of the stream.
enum Pending {
    Batch(u64, oneshot::Receiver<Answer>),
    /// Nothing more comes, because of this.
    End(Status),
}

struct Intake {
    host: Arc<Host>,
    ledger: Ledger,
    health: Arc<Health>,
    stopping: watch::Receiver<bool>,
    session: Session,
}

impl Intake {
    async fn run(mut self, mut batches: Streaming<SignedBatch>, pending: mpsc::Sender<Pending>) {
        let expires = tokio::time::Instant::now() + self.host.validity_left();
        loop {
            let received = tokio::select! {
                received = batches.message() => received,
                () = pending.closed() => return,
                _ = self.stopping.wait_for(|stopping| *stopping) => Err(status(&LedgerError::Stopping)),
                ended = self.session.ended() => Err(refuse(ended.into())),
                () = tokio::time::sleep_until(expires) => Err(refuse(Reason::Expired)),
            };
            let next = match received {
                Ok(None) => return,
                Ok(Some(batch)) => self.hand_in(batch).await,
                Err(status) => Pending::End(self.broken(status)),
            };
            let last = matches!(next, Pending::End(_));
            if pending.send(next).await.is_err() || last {
                return;
            }
        }
    }

    async fn hand_in(&self, batch: SignedBatch) -> Pending {
        match self.open(&batch) {
            Ok(opened) => {
                let number = opened.header.number;
                Pending::Batch(number, self.ledger.submit(self.host.clone(), batch, opened).await)
            }
            Err(status) => Pending::End(status),
        }
    }

    fn open(&self, batch: &SignedBatch) -> Result<OpenedBatch, Status> {
        let opened = batch::open(batch, &self.host.key).map_err(|error| {
            self.health.refuse(Refusal::Garbage, &self.host.id, &error);
            Status::invalid_argument(error.to_string())
        })?;
        if opened.header.host_id != self.host.id.as_str() {
            let rule = "a host may send only batches of its own host id";
            self.health.refuse(Refusal::Identity, &self.host.id, rule);
            return Err(Status::permission_denied(format!("{rule}: {}", self.host.id)));
        }
        Ok(opened)
    }

    /// A stream that broke off: only what the peer sent wrong is a refusal.
    fn broken(&self, status: Status) -> Status {
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => {
                self.health.refuse(Refusal::Oversized, &self.host.id, status.message());
            }
            Code::Internal | Code::Unimplemented | Code::InvalidArgument => {
                self.health.refuse(Refusal::Garbage, &self.host.id, status.message());
            }
            _ => tracing::debug!(host = %self.host.id, %status, "stream ended"),
        }
        status
    }
}

async fn acknowledge(
    host: Arc<Host>,
    mut waiting: mpsc::Receiver<Pending>,
    out: mpsc::Sender<Result<Acknowledgement, Status>>,
    health: Arc<Health>,
) {
    while let Some(pending) = waiting.recv().await {
        let result = match pending {
            Pending::End(status) => Err(status),
            Pending::Batch(number, answer) => match answer.await.unwrap_or(Err(LedgerError::Stopping)) {
                Ok(_) => Ok(Acknowledgement { number, challenge: Vec::new() }),
                Err(error) => {
                    if let Some(why) = refusal(&error) {
                        health.refuse(why, &host.id, &error);
                    }
                    Err(status(&error))
                }
            },
        };
        let last = result.is_err();
        if out.send(result).await.is_err() || last {
            return;
        }
    }
}

fn status(error: &LedgerError) -> Status {
    let code = match error {
        LedgerError::Chain(ChainError::Gap { .. } | ChainError::Sequence { .. }) => Code::FailedPrecondition,
        LedgerError::Chain(ChainError::Fork { .. } | ChainError::Old { .. }) => Code::AlreadyExists,
        LedgerError::ForeignKey | LedgerError::NoLeaf(_) => Code::PermissionDenied,
        LedgerError::Disk(_) | LedgerError::Stopping => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

fn refusal(error: &LedgerError) -> Option<Refusal> {
    match error {
        LedgerError::Chain(ChainError::Gap { .. } | ChainError::Sequence { .. }) => Some(Refusal::Gap),
        LedgerError::Chain(ChainError::Fork { .. } | ChainError::Old { .. }) => Some(Refusal::Fork),
        LedgerError::ForeignKey | LedgerError::NoLeaf(_) => Some(Refusal::Identity),
        LedgerError::Disk(_) => Some(Refusal::Disk),
        LedgerError::Stopping => None,
    }
}
