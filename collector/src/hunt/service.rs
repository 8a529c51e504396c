//! Hunts over gRPC and for the HTTP API: a bounded number at a time, with progress.

use std::{sync::Arc, time::Duration};

use buildtrail_proto::v1::{
    HuntProgress, HuntReply, HuntRequest, HuntResult, hunt_reply::Reply, hunting_server::Hunting,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Hunt, HuntError, Indicators};
use crate::{
    access::{self, Action, Person},
    health::{Health, Refusal},
    query::{Queries, QueryError},
};

/// Hunts at a time: each keeps a connection to the index busy.
const AT_A_TIME: usize = 2;
/// Replies that wait for the asker.
const UNREAD: usize = 16;
/// How long one question of a hunt to the index may take: it reads all values.
const LIMIT: Duration = Duration::from_mins(2);

/// Progress, then the result.
pub(crate) type Replies = ReceiverStream<Result<HuntReply, Status>>;

/// Starts hunts. Clones are one.
#[derive(Clone)]
pub(crate) struct Hunts {
    queries: Queries,
    places: Arc<Semaphore>,
    health: Arc<Health>,
}

impl Hunts {
    pub(crate) fn new(queries: Queries, health: Arc<Health>) -> Self {
        Self { queries, places: Arc::new(Semaphore::new(AT_A_TIME)), health }
    }

    /// Starts a hunt, which ends when nobody reads its replies any more.
    pub(crate) fn start(&self, person: &Person, request: &HuntRequest) -> Result<Replies, QueryError> {
        person.require(Action::Analyse)?;
        let HuntRequest { indicators, since, until, .. } = request;
        let indicators = Indicators::parse(indicators, request.format()).map_err(QueryError::Asked)?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.health.refuse(Refusal::Busy, person, "too many hunts at a time");
            return Err(QueryError::Busy("other hunts are under way; try again when they are done"));
        };
        self.queries.asked(person, "Hunt", &indicators.words());
        let hunt = Hunt {
            indicators: Arc::new(indicators),
            scope: person.scope.clone(),
            since: *since,
            until: *until,
        };
        let (out, stream) = mpsc::channel(UNREAD);
        tokio::spawn(run(hunt, self.queries.clone(), out, place));
        Ok(ReceiverStream::new(stream))
    }
}

type Out = mpsc::Sender<Result<HuntReply, Status>>;

async fn run(hunt: Hunt, queries: Queries, out: Out, place: OwnedSemaphorePermit) {
    let (progress, mut told) = mpsc::channel::<HuntProgress>(UNREAD);
    let told_to = out.clone();
    let telling = tokio::spawn(async move {
        while let Some(progress) = told.recv().await {
            if told_to.send(Ok(HuntReply { reply: Some(Reply::Progress(progress)) })).await.is_err() {
                break;
            }
        }
    });
    let found = tokio::select! {
        found = hunt.run(&queries.reader, LIMIT, &progress) => found,
        () = out.closed() => return,
    };
    drop((progress, place));
    // Progress comes before the result.
    let _ = telling.await;
    let reply = found.map(|result| HuntReply { reply: Some(Reply::Result(result)) });
    let _ = out.send(reply.map_err(|error| QueryError::from(error).into())).await;
}

impl From<HuntError> for QueryError {
    fn from(error: HuntError) -> Self {
        match error {
            HuntError::Store(error) => error.into(),
            HuntError::Indicators(_) | HuntError::TooMany => Self::Asked(error.to_string()),
        }
    }
}

/// The result at the end of the replies.
pub(crate) async fn result(mut replies: Replies) -> Result<HuntResult, Status> {
    use tokio_stream::StreamExt as _;
    while let Some(reply) = replies.next().await {
        if let Some(Reply::Result(result)) = reply?.reply {
            return Ok(result);
        }
    }
    Err(Status::internal("the hunt ended without a result; the collector's own log says more"))
}

/// The gRPC service.
pub(crate) struct Service {
    pub(crate) hunts: Hunts,
    pub(crate) health: Arc<Health>,
}

#[tonic::async_trait]
impl Hunting for Service {
    type HuntStream = Replies;

    async fn hunt(&self, request: Request<HuntRequest>) -> Result<Response<Replies>, Status> {
        let person = access::person(&request, Action::Analyse, &self.health)?;
        Ok(Response::new(self.hunts.start(&person, &request.into_inner())?))
    }
}
