//! Query: what readers may ask.
//!
//! In: the calls of `query.proto`. Out: bounded answers from the index, live events, a verdict on the log.
//! Must never slow down ingest: questions have their own connections, time and places, and a slow tail is cut off.

mod acts;
pub(crate) mod files;
pub(crate) mod filter;
mod proofs;
mod tail;
mod words;

use std::{path::PathBuf, sync::Arc, time::Duration};

use buildtrail_evidence::{
    tlog::{note::NoteKey, tiles::Tiles},
    verify,
};
use buildtrail_proto::v1::{
    AuditEvent, GetCheckpointRequest, GetCheckpointResponse, GetJobRequest, GetJobResponse, ListActsRequest,
    ListActsResponse, ListEventsRequest, ListEventsResponse, ListJobsRequest, ListJobsResponse,
    ProveConsistencyRequest, ProveConsistencyResponse, ProveEventRequest, ProveEventResponse,
    ProveRecordRequest, ProveRecordResponse, TailRequest, VerifyRequest, VerifyResponse, query_server::Query,
};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    access::{self, Action},
    acts::Questions,
    health::{Health, Refusal},
    ledger::Ledger,
    store::{Bounds, LiveEvents, Order, Reader, Selection, StoreError},
    tree::Published,
    witness::submit::Statements,
};

const DEFAULT_JOBS: usize = 50;
const MAX_JOBS: usize = 1000;
const DEFAULT_EVENTS: usize = 1000;
const MAX_EVENTS: usize = 10_000;
const MAX_STEPS: usize = 1000;
/// Of the events in one answer, encoded: gRPC clients refuse more than 4 MiB unless told otherwise.
const MAX_ANSWER_BYTES: usize = 3 << 20;

/// The gRPC service.
pub(crate) struct Service {
    pub(crate) reader: Reader,
    pub(crate) limit: Duration,
    pub(crate) live: LiveEvents,
    pub(crate) tails: Arc<Semaphore>,
    pub(crate) ledger: Ledger,
    pub(crate) log_directory: PathBuf,
    /// One at a time: it reads the whole log.
    pub(crate) verifying: Mutex<()>,
    pub(crate) health: Arc<Health>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) tree: Tree,
}

/// What the proofs are made of.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) published: Published,
    pub(crate) witnesses: Statements,
    pub(crate) tiles: Tiles,
    pub(crate) log_key: NoteKey,
}

#[tonic::async_trait]
impl Query for Service {
    type TailStream = ReceiverStream<Result<AuditEvent, Status>>;

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let reader = access::person(&request, Action::Read, &self.health)?;
        let request = request.into_inner();
        self.questions.asked(&reader.name, "ListJobs", &words::jobs(&request));
        let ListJobsRequest { limit, repository, since, until } = request;
        let limit = bounded(limit, DEFAULT_JOBS, MAX_JOBS);
        let (since, until) = filter::span(since.as_ref(), until.as_ref());
        let jobs = self
            .reader
            .ask(self.limit, move |asked| Ok::<_, Status>(asked.jobs(&repository, since, until, limit)?))
            .await?;
        Ok(Response::new(ListJobsResponse { jobs }))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let reader = access::person(&request, Action::Read, &self.health)?;
        let ListEventsRequest { filter, limit } = request.into_inner();
        let filter = filter.unwrap_or_default();
        filter::check(&filter)?;
        self.questions.asked(&reader.name, "ListEvents", &words::filter(&filter));
        let bounds = Bounds { events: bounded(limit, DEFAULT_EVENTS, MAX_EVENTS), bytes: MAX_ANSWER_BYTES };
        let (mut events, more) = self
            .reader
            .ask(self.limit, move |asked| {
                let selection = filter::selection(&filter, asked)?;
                Ok::<_, Status>(asked.events(&selection, Order::NewestFirst, bounds)?)
            })
            .await?;
        events.reverse();
        Ok(Response::new(ListEventsResponse { events, more }))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let reader = access::person(&request, Action::Analyse, &self.health)?;
        let Ok(place) = self.tails.clone().try_acquire_owned() else {
            self.health.refuse(Refusal::Busy, &reader, "limits.max_tails is reached");
            return Err(Status::resource_exhausted("too many live tails; end one or raise limits.max_tails"));
        };
        let filter = request.into_inner().filter.unwrap_or_default();
        filter::check(&filter)?;
        self.questions.asked(&reader.name, "Tail", &words::filter(&filter));
        // Before the look at the index, so that nothing falls in between.
        let events = self.live.subscribe();
        let wanted = filter.clone();
        self.reader.ask(self.limit, move |asked| filter::ensure_unambiguous(&wanted, asked)).await?;
        let tail = tail::Tail {
            filter,
            events,
            reader,
            health: self.health.clone(),
            stopping: self.stopping.clone(),
            _place: place,
        };
        Ok(Response::new(tail.start()))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let reader = access::person(&request, Action::Read, &self.health)?;
        let prefix = request.into_inner().job_id;
        self.questions.asked(&reader.name, "GetJob", &words::job(&prefix));
        let bounds = Bounds { events: MAX_EVENTS, bytes: MAX_ANSWER_BYTES };
        let answer = self
            .reader
            .ask(self.limit, move |asked| {
                let job = filter::job(&prefix, asked)?;
                let mut selection = Selection::default();
                selection.job(job);
                selection.not_kind("process.exec");
                let (timeline, more) = asked.events(&selection, Order::OldestFirst, bounds)?;
                let summary = Some(asked.job(job)?);
                Ok::<_, Status>(GetJobResponse {
                    summary,
                    steps: asked.steps(job, MAX_STEPS)?,
                    timeline,
                    more,
                })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        let reader = access::person(&request, Action::Verify, &self.health)?;
        self.questions.asked(&reader.name, "Verify", "");
        let _one_at_a_time = self.verifying.lock().await;
        let (directory, end) = (self.log_directory.clone(), self.ledger.durable_end());
        let verified = tokio::task::spawn_blocking(move || verify::verify_up_to(&directory, end)).await;
        let report = verified
            .map_err(|_| Status::internal("verifying failed; see the collector's own log"))?
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(report.to_response()))
    }

    async fn list_acts(
        &self,
        request: Request<ListActsRequest>,
    ) -> Result<Response<ListActsResponse>, Status> {
        let reader = access::person(&request, Action::ReadActs, &self.health)?;
        acts::list(self, &reader, request.into_inner()).await.map(Response::new)
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let reader = access::person(&request, Action::Verify, &self.health)?;
        self.questions.asked(&reader.name, "GetCheckpoint", "");
        Ok(Response::new(self.tree.checkpoint()))
    }

    async fn prove_record(
        &self,
        request: Request<ProveRecordRequest>,
    ) -> Result<Response<ProveRecordResponse>, Status> {
        let reader = access::person(&request, Action::Verify, &self.health)?;
        let record = request.into_inner().record;
        self.questions.asked(&reader.name, "ProveRecord", &format!("record {record}"));
        proofs::record(self, record).await.map(Response::new)
    }

    async fn prove_consistency(
        &self,
        request: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ProveConsistencyResponse>, Status> {
        let reader = access::person(&request, Action::Verify, &self.health)?;
        let ProveConsistencyRequest { old_size, new_size } = request.into_inner();
        self.questions.asked(&reader.name, "ProveConsistency", &format!("sizes {old_size} and {new_size}"));
        proofs::consistency(self, old_size, new_size).await.map(Response::new)
    }

    async fn prove_event(
        &self,
        request: Request<ProveEventRequest>,
    ) -> Result<Response<ProveEventResponse>, Status> {
        let reader = access::person(&request, Action::Export, &self.health)?;
        let asked = request.into_inner();
        self.questions.asked(&reader.name, "ProveEvent", &words::event(&asked));
        proofs::event(self, asked).await.map(Response::new)
    }
}

fn bounded(asked: u32, default: usize, max: usize) -> usize {
    match usize::try_from(asked) {
        Ok(0) => default,
        Ok(asked) => asked.min(max),
        Err(_) => max,
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::TimedOut) {
            return Self::deadline_exceeded(error.to_string());
        }
        tracing::error!(%error, "a question failed");
        Self::internal("the collector's index failed; its own log says more")
    }
}
