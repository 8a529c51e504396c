//! Export: evidence to take away, for verifiers that do not believe the collector.
//!
//! In: the calls of `export.proto`. Out: the log's records as they are on disk, or one job's bundle. Each export is an
//! entry of the log. Must never give out events of another job with a job's bundle, nor slow down ingest: it reads files
//! on threads of its own, a few at a time.

mod job;
mod log;

use std::{path::PathBuf, sync::Arc, time::Duration};

use buildtrail_evidence::{
    dsse, in_toto,
    tlog::note::{NoteSigner, SignedCheckpoint},
    verify::{Trust, verify_bundle},
};
use buildtrail_proto::v1::{
    ExportFormat, ExportJobRequest, ExportPiece, Exported, LogRecord, ReadLogRequest, collector_entry::Act,
    export_server,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    access::{self, Action, Person},
    acts::Acts,
    health::{Health, Refusal},
    ledger::Ledger,
    query::{self, Tree},
    store::Reader,
};

/// Exports at a time.
pub(crate) const AT_A_TIME: usize = 4;
/// Pieces that wait for a reader's network.
const UNREAD: usize = 4;
/// Of a bundle in one message.
const PIECE_BYTES: usize = 1 << 20;
/// How long a job's last record may wait for its checkpoint.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(20);

/// The gRPC service.
pub(crate) struct Service {
    pub(crate) reader: Reader,
    pub(crate) limit: Duration,
    pub(crate) ledger: Ledger,
    pub(crate) log_directory: PathBuf,
    pub(crate) tree: Tree,
    pub(crate) signer: Arc<NoteSigner>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) acts: Acts,
    pub(crate) health: Arc<Health>,
}

type Pieces<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl export_server::Export for Service {
    type ReadLogStream = Pieces<LogRecord>;
    type ExportJobStream = Pieces<ExportPiece>;

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let person = access::person(&request, Action::Verify, &self.health)?;
        let place = self.place(&person)?;
        let first = request.into_inner().first_record;
        let end = self.ledger.durable_end();
        self.note(&person, format!("records {first}–{}", end.0.saturating_sub(1)), 0, 0);
        let (out, stream) = mpsc::channel(UNREAD);
        let (directory, tree) = (self.log_directory.clone(), self.tree.clone());
        tokio::task::spawn_blocking(move || {
            log::send(&directory, &tree, first, end, &out);
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn export_job(
        &self,
        request: Request<ExportJobRequest>,
    ) -> Result<Response<Self::ExportJobStream>, Status> {
        let person = access::person(&request, Action::Export, &self.health)?;
        let place = self.place(&person)?;
        let ExportJobRequest { job_id, format } = request.into_inner();
        let format = ExportFormat::try_from(format)
            .ok()
            .filter(|format| *format != ExportFormat::Unspecified)
            .ok_or_else(|| Status::invalid_argument("ask for a bundle or for an in-toto statement"))?;
        let scope = person.scope.clone();
        let place_of_job = self
            .reader
            .ask(self.limit, move |asked| {
                Ok::<_, Status>(asked.records_of(&scope, query::job(&job_id, asked, &scope)?)?)
            })
            .await?;
        let wanted =
            place_of_job.ok_or_else(|| Status::not_found("nothing of this job is left in the index"))?;
        let checkpoint = self.checkpoint_over(wanted.last_record()).await?;
        let source = job::Source {
            directory: self.log_directory.clone(),
            tiles: self.tree.tiles.clone(),
            end: self.ledger.durable_end(),
            signer: self.signer.clone(),
            reader: person.name.clone(),
        };
        let job_id = wanted.job_id.clone();
        let made = tokio::task::spawn_blocking(move || -> Result<_, Status> {
            let bundle = job::bundle(&source, &wanted, &checkpoint)?;
            let counts = (bundle.batches, bundle.events);
            let bytes = match format {
                ExportFormat::InToto => envelope(&bundle.bytes, &source.signer)?,
                _ => bundle.bytes,
            };
            Ok((bytes, counts))
        });
        let (bytes, (batches, events)) = made
            .await
            .unwrap_or_else(|_| Err(Status::internal("the export failed; see the collector's own log")))?;
        self.note(&person, format!("job {job_id}"), batches, events);
        Ok(Response::new(in_pieces(bytes, place)))
    }
}

impl Service {
    fn place(&self, person: &Person) -> Result<OwnedSemaphorePermit, Status> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            self.health.refuse(Refusal::Busy, person, "too many exports at a time");
            Status::resource_exhausted("other exports are under way; try again when they are done")
        })
    }

    fn note(&self, person: &Person, what: String, batches: u64, events: u64) {
        self.acts.record(Act::Exported(Exported { reader: person.name.clone(), what, batches, events }));
    }

    /// The newest checkpoint over a record, one that is sufficiently cosigned if there is one.
    async fn checkpoint_over(&self, record: u64) -> Result<SignedCheckpoint, Status> {
        let mut published = self.tree.published.clone();
        let covered = published.wait_for(|heads| heads.latest.checkpoint().size > record);
        match timeout(CHECKPOINT_PATIENCE, covered).await {
            Ok(Ok(heads)) => {
                let covers = |head: &&SignedCheckpoint| head.checkpoint().size > record;
                Ok(heads.witnessed.as_ref().filter(covers).unwrap_or(&heads.latest).clone())
            }
            _ => {
                Err(Status::unavailable("the job's last record is not in a signed checkpoint yet; try again"))
            }
        }
    }
}

/// The statement says what the bundle proves, and nothing else.
fn envelope(bundle: &[u8], signer: &NoteSigner) -> Result<Vec<u8>, Status> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "an export failed");
        Status::internal("the statement could not be made; the collector's own log says more")
    };
    let trust = Trust { log_key: Some(signer.public().clone()), ..Trust::default() };
    let found = verify_bundle(bundle, &trust).map_err(|error| failed(&error))?;
    if let Some(problem) = found.report.problems.first() {
        return Err(Status::data_loss(format!("the job's evidence does not verify: {problem}")));
    }
    let text = dsse::sign(in_toto::statement(&found).to_string().as_bytes(), signer);
    Ok(text.map_err(|error| failed(&error))?.into_bytes())
}

fn in_pieces(bytes: Vec<u8>, place: OwnedSemaphorePermit) -> Pieces<ExportPiece> {
    let (out, stream) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        for piece in bytes.chunks(PIECE_BYTES) {
            if out.send(Ok(ExportPiece { data: piece.to_vec() })).await.is_err() {
                break;
            }
        }
        drop(place);
    });
    ReceiverStream::new(stream)
}
