//! Query: what readers may ask.
//!
//! In: the calls of `query.proto`. Out: bounded answers from the index, live events, a verdict on the log.
//! Must never slow down ingest: questions have their own connections, time and places, and a slow tail is cut off.

mod cursor;
mod error;
pub(crate) mod files;
mod hosts;
mod proofs;
mod queries;
mod tail;

use std::{path::PathBuf, sync::Arc};

use buildtrail_evidence::{
    tlog::{note::NoteKey, tiles::Tiles},
    verify,
};
use buildtrail_proto::{
    Timestamp, now,
    v1::{
        AggregateRequest, AggregateResponse, GetCheckpointRequest, GetCheckpointResponse, GetJobRequest,
        GetJobResponse, HostsRequest, HostsResponse, ListActsRequest, ListActsResponse, ListJobsRequest,
        ListJobsResponse, ProveConsistencyRequest, ProveConsistencyResponse, ProveEventRequest,
        ProveEventResponse, ProveRecordRequest, ProveRecordResponse, SearchEventsRequest,
        SearchEventsResponse, TailRequest, VerifyRequest, VerifyResponse, query_server::Query,
    },
};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

pub(crate) use self::{
    error::QueryError,
    queries::{LiveStream, Queries, job},
};
use crate::{
    access::{self, Action, Person},
    health::Health,
    ledger::Ledger,
    tree::Published,
    witness::submit::Statements,
};

/// The gRPC service.
pub(crate) struct Service {
    pub(crate) queries: Queries,
    pub(crate) ledger: Ledger,
    pub(crate) log_directory: PathBuf,
    /// One at a time: it reads the whole log. What the last one found.
    pub(crate) verifying: Mutex<Option<Verified>>,
    pub(crate) health: Arc<Health>,
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

/// What a verification of the whole log found.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    /// When it ended.
    pub(crate) time: Timestamp,
    pub(crate) by: String,
    pub(crate) hosts: u64,
    pub(crate) batches: u64,
    pub(crate) events: u64,
    pub(crate) problems: u64,
    pub(crate) complete: bool,
}

impl Service {
    /// Checks the whole log as it is on disk.
    pub(crate) async fn verify_log(&self, person: &Person) -> Result<verify::Report, Status> {
        person
            .require(Action::Verify)
            .map_err(|forbidden| Status::permission_denied(forbidden.to_string()))?;
        self.queries.asked(person, "Verify", "");
        let mut last = self.verifying.lock().await;
        let (directory, end) = (self.log_directory.clone(), self.ledger.durable_end());
        let verified = tokio::task::spawn_blocking(move || verify::verify_up_to(&directory, end)).await;
        let report = verified
            .map_err(|_| Status::internal("verifying failed; see the collector's own log"))?
            .map_err(|error| Status::internal(error.to_string()))?;
        *last = Some(Verified {
            time: now(),
            by: person.name.clone(),
            hosts: report.hosts.len() as u64,
            batches: report.batches,
            events: report.events,
            problems: report.problems.len() as u64,
            complete: report.hosts.iter().all(|host| host.complete),
        });
        Ok(report)
    }

    /// What the last verification since the start found; `None` also while one goes on.
    pub(crate) fn last_verification(&self) -> Option<Verified> {
        self.verifying.try_lock().ok()?.clone()
    }
}

#[tonic::async_trait]
impl Query for Service {
    type TailStream = LiveStream;

    async fn search_events(
        &self,
        request: Request<SearchEventsRequest>,
    ) -> Result<Response<SearchEventsResponse>, Status> {
        let person = access::person(&request, Action::Read, &self.health)?;
        Ok(Response::new(self.queries.search(&person, request.into_inner()).await?))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let person = access::person(&request, Action::Read, &self.health)?;
        Ok(Response::new(self.queries.jobs(&person, request.into_inner()).await?))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let person = access::person(&request, Action::Read, &self.health)?;
        Ok(Response::new(self.queries.job(&person, &request.into_inner().job_id).await?))
    }

    async fn aggregate(
        &self,
        request: Request<AggregateRequest>,
    ) -> Result<Response<AggregateResponse>, Status> {
        let person = access::person(&request, Action::Analyse, &self.health)?;
        Ok(Response::new(self.queries.aggregate(&person, request.into_inner()).await?))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let person = access::person(&request, Action::Analyse, &self.health)?;
        let search = request.into_inner().search.unwrap_or_default();
        Ok(Response::new(self.queries.tail(&person, search).await?))
    }

    async fn list_hosts(&self, request: Request<HostsRequest>) -> Result<Response<HostsResponse>, Status> {
        let person = access::person(&request, Action::ReadHosts, &self.health)?;
        Ok(Response::new(self.queries.hosts(&person).await?))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        let person = access::person(&request, Action::Verify, &self.health)?;
        Ok(Response::new(self.verify_log(&person).await?.to_response()))
    }

    async fn list_acts(
        &self,
        request: Request<ListActsRequest>,
    ) -> Result<Response<ListActsResponse>, Status> {
        let person = access::person(&request, Action::ReadActs, &self.health)?;
        Ok(Response::new(self.queries.acts(&person, request.into_inner()).await?))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let person = access::person(&request, Action::Verify, &self.health)?;
        self.queries.asked(&person, "GetCheckpoint", "");
        Ok(Response::new(self.tree.checkpoint()))
    }

    async fn prove_record(
        &self,
        request: Request<ProveRecordRequest>,
    ) -> Result<Response<ProveRecordResponse>, Status> {
        let person = access::person(&request, Action::Verify, &self.health)?;
        let record = request.into_inner().record;
        self.queries.asked(&person, "ProveRecord", &format!("record {record}"));
        proofs::record(self, record).await.map(Response::new)
    }

    async fn prove_consistency(
        &self,
        request: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ProveConsistencyResponse>, Status> {
        let person = access::person(&request, Action::Verify, &self.health)?;
        let ProveConsistencyRequest { old_size, new_size } = request.into_inner();
        self.queries.asked(&person, "ProveConsistency", &format!("sizes {old_size} and {new_size}"));
        proofs::consistency(self, old_size, new_size).await.map(Response::new)
    }

    async fn prove_event(
        &self,
        request: Request<ProveEventRequest>,
    ) -> Result<Response<ProveEventResponse>, Status> {
        let person = access::person(&request, Action::Export, &self.health)?;
        let asked = request.into_inner();
        let what = format!("event {} of boot {} of host {}", asked.sequence, asked.boot_id, asked.host_id);
        self.queries.asked(&person, "ProveEvent", &what);
        proofs::event(self, &person, asked).await.map(Response::new)
    }
}

fn bounded(asked: u32, default: usize, max: usize) -> usize {
    match usize::try_from(asked) {
        Ok(0) => default,
        Ok(asked) => asked.min(max),
        Err(_) => max,
    }
}
