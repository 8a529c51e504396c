//! Starting and stopping the collector: the parts put together.
//!
//! In: a [`Config`]. Out: a [`Running`] collector. When the log or the index can no longer be written it stops by
//! itself with the reason, so that a supervisor starts it anew and the files are checked.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::middleware::from_fn_with_state;
use buildtrail_evidence::{
    records::RecordsError,
    tlog::{
        note::{NoteKey, NoteSigner},
        tiles::Tiles,
    },
};
use buildtrail_proto::v1::{
    CollectorStopped, access_server::AccessServer, administration_server::AdministrationServer,
    collector_entry::Act, enrolment_server::EnrolmentServer, export_server::ExportServer,
    hunting_server::HuntingServer, identity_server::IdentityServer, ingest_server::IngestServer,
    query_server::QueryServer,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore, broadcast, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    codec::CompressionEncoding,
    service::Routes,
    transport::{Server, server::Router},
};

use crate::{
    access::{self, Access, OidcError, gate},
    acts::{self, Acts, Failures, MAX_TEXT, Questions},
    api::{self, Api},
    config::Config,
    dark::{self, Watch},
    data::{self, Data},
    enrol::{Authority, Control, Enrolment},
    export,
    health::Health,
    hunt, ingest,
    ledger::{Around, INDEX_QUEUE, Ledger, Space, TREE_QUEUE},
    oidc_identity,
    query::{self, Queries},
    retention::Retention,
    store::{LiveEvents, Reader, run_indexer},
    tls,
    tree::Published,
    web::{self, Web},
    witness::submit::{self, Statements},
};
pub use crate::{
    data::{OnLoss, reindex},
    enrol::{AuthorityError, ControlError},
    store::StoreError,
    tls::TlsError,
    tree::TreeError,
};

/// How long open streams may take to end at a stop.
const GRACE: Duration = Duration::from_secs(5);
/// Live events that a tail may lag behind.
const LIVE_EVENTS: usize = 4096;
/// A peer that does not answer for this long, twice, is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);
const STREAMS_PER_CONNECTION: u32 = 16;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Of one request.
const MAX_HEADER_BYTES: u32 = 32 << 10;
/// What a question may hold.
const MAX_QUESTION_BYTES: usize = 64 << 10;
/// What the protobuf framing of a batch adds at most.
const BATCH_FRAMING: usize = 1 << 10;

/// The collector could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificates or keys.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The authority's key.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Single sign-on.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// The record of hosts, people and tokens.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The data directory could not be made.
    #[error("cannot make the data directory {}: {source}; see data_directory in the settings", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] RecordsError),
    /// The index.
    #[error(transparent)]
    Index(#[from] StoreError),
    /// The address.
    #[error("cannot listen on {address}: {source}; choose another one with `listen` in the settings")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The tree over the log.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Serving broke off.
    #[error("the collector had to stop: {0}")]
    Stopped(String),
}

/// A collector that serves. Dropping it leaves it running until the runtime ends; [`Running::stop`] stops it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its counters.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Ends all streams, waits for what was handed in to be stored and indexed, and closes everything.
    ///
    /// # Errors
    /// It had already stopped because of an error.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.stop.send_replace(true);
        joined(self.serving.await)
    }

    /// Waits until it stops by itself, which is always an error. Cancel safe: it goes on when this is dropped.
    ///
    /// # Errors
    /// Why it stopped.
    pub async fn failed(&mut self) -> Result<(), ServeError> {
        joined((&mut self.serving).await)
    }
}

fn joined(served: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Result<(), ServeError> {
    served.unwrap_or_else(|error| Err(ServeError::Stopped(error.to_string())))
}

/// Starts a collector: repairs the log, brings the index up to it, listens.
///
/// # Errors
/// What is missing or broken, and what to do about it.
pub async fn start(config: Config) -> Result<Running, ServeError> {
    start_with(config, OnLoss::Refuse).await
}

/// As [`start`], and says what to do about a log that is shorter than what was signed.
///
/// # Errors
/// As [`start`].
pub async fn start_with(config: Config, on_loss: OnLoss) -> Result<Running, ServeError> {
    let mut config = config;
    (config.tls, config.enrol.authority_key) = tls::files_of(&config)?;
    let files = tls::Files::read(&config.tls)?;
    let opening = config.clone();
    let opened = tokio::task::spawn_blocking(move || data::open(&opening, on_loss)).await;
    let data = opened.unwrap_or_else(|error| Err(ServeError::Stopped(error.to_string())))?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServeError::Listen { address: config.listen, source })?;
    let address =
        listener.local_addr().map_err(|source| ServeError::Listen { address: config.listen, source })?;

    let health = Arc::new(Health::default());
    let (stop, stopping) = watch::channel(false);
    let workers = Workers::start(data, &config, &health, &stopping)?;
    let (acts, failures) = (workers.background.acts.clone(), workers.sign_ins.clone());
    let access = Access::new(&config, files.names(), acts, failures, health.clone())?;
    tokio::spawn(access::record_left_acts(access.clone(), stopping.clone()));
    let enrolment = enrolment(&config, &files, &workers.background.acts, &health)?;
    let acceptor = files.acceptor(config.enrol.authority_key.is_some(), config.web.enabled)?;
    let places = tls::Places::new(config.limits.max_connections, config.web.enabled);
    let connections = tls::accept(listener, acceptor, places, health.clone());
    let acts = workers.background.acts.clone();
    let identity = oidc_identity::Service::new(&config.identity_issuers, acts, health.clone())?;
    let router = router(&config, &workers, enrolment, access, &health, &stopping, identity);
    let serving = tokio::spawn(serve(router, connections, workers.background, stop.clone(), health.clone()));
    tracing::info!(%address, data_directory = %config.data_directory.display(), "listening");
    Ok(Running { address, health, stop, serving })
}

fn enrolment(
    config: &Config,
    files: &tls::Files,
    acts: &Acts,
    health: &Arc<Health>,
) -> Result<Enrolment, ServeError> {
    let control = Control::open(&config.control_file())?;
    let lifetime = config.enrol.certificate_lifetime.duration();
    let key = config.enrol.authority_key.as_ref();
    let authority = key.map(|key| Authority::load(key, &files.authorities, lifetime)).transpose()?;
    let authorities = files.authorities.clone();
    Ok(Enrolment::new(control, authority, authorities, &config.enrol, acts.clone(), health.clone()))
}

/// The threads that write, and how to reach them.
struct Workers {
    ledger: Ledger,
    live: LiveEvents,
    reader: Reader,
    questions: Arc<Questions>,
    watch: Arc<Watch>,
    /// Those that failed.
    sign_ins: Arc<Failures>,
    published: Published,
    witnesses: Statements,
    log_key: NoteKey,
    signer: Arc<NoteSigner>,
    background: Background,
}

/// What runs until everything is stored.
struct Background {
    failures: mpsc::UnboundedReceiver<String>,
    acts: Acts,
    notes: JoinHandle<()>,
    /// End when the last act is stored.
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(
        data: Data,
        config: &Config,
        health: &Arc<Health>,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        let Data { log, store, keeper, published } = data;
        let (log_key, signer) = (keeper.public_key().clone(), keeper.signer());
        let policy = keeper.policy().cloned();
        let known = store.known_hosts()?;
        let reader = store.reader();
        let (live, _) = broadcast::channel(LIVE_EVENTS);
        let (stored, to_index) = mpsc::channel(INDEX_QUEUE);
        let (to_tree, leaves) = std::sync::mpsc::sync_channel(TREE_QUEUE);
        let (failed, failures) = mpsc::unbounded_channel();
        let (acts, desk) = Acts::new();
        let questions = Arc::new(Questions::new(acts.clone()));
        let sign_ins = Arc::new(Failures::new(acts.clone()));

        let patience = Duration::from_secs(config.hosts.dark_after_seconds);
        let watch = Arc::new(Watch::new(patience, store.watched_hosts()?));
        let to_witnesses = to_tree.clone();
        let around = Around {
            lookup: reader.clone(),
            indexed: stored,
            tree: to_tree,
            health: health.clone(),
            watch: watch.clone(),
            space: Space::new(config.data_directory.clone(), config.log.reserve_bytes),
        };
        let (ledger, writing) = Ledger::start(log, known, around);
        let writing = tokio::spawn(supervise(writing, failed.clone()));
        let (publisher, until) = (live.clone(), stopping.clone());
        let indexing = tokio::task::spawn_blocking(move || run_indexer(store, to_index, &publisher, &until));
        let indexing = tokio::spawn(supervise(indexing, failed));
        let witnesses = submit::start(config, policy.as_ref(), &published, &to_witnesses, &acts)?;
        drop(to_witnesses);
        let interval = Duration::from_secs(config.tree.checkpoint_seconds);
        let keeping = tokio::task::spawn_blocking(move || keeper.run(&leaves, interval));
        let clerk = tokio::spawn(acts::clerk(desk, ledger.clone()));
        let limit = Duration::from_secs(config.limits.query_seconds);
        tokio::spawn(dark::run(watch.clone(), acts.clone(), reader.clone(), limit, stopping.clone()));
        let retention = Retention {
            settings: config.retention,
            log_directory: config.log_directory(),
            ledger: ledger.clone(),
            acts: acts.clone(),
            reader: reader.clone(),
            limit,
        };
        tokio::spawn(retention.run(stopping.clone()));
        let notes =
            acts::notes(acts.clone(), questions.clone(), sign_ins.clone(), health.clone(), stopping.clone());
        let background = Background {
            failures,
            acts,
            notes: tokio::spawn(notes),
            tasks: vec![clerk, writing, indexing, keeping],
        };
        Ok(Self {
            ledger,
            live,
            reader,
            questions,
            watch,
            sign_ins,
            published,
            witnesses,
            log_key,
            signer,
            background,
        })
    }
}

/// Waits for a thread; its failure stops the collector.
async fn supervise<E: std::fmt::Display>(
    thread: JoinHandle<Result<(), E>>,
    failed: mpsc::UnboundedSender<String>,
) {
    let outcome = thread.await.map_err(|error| error.to_string());
    if let Err(error) = outcome.and_then(|ended| ended.map_err(|error| error.to_string())) {
        let _ = failed.send(error);
    }
}

fn router(
    config: &Config,
    workers: &Workers,
    enrolment: Enrolment,
    access: Access,
    health: &Arc<Health>,
    stopping: &watch::Receiver<bool>,
    identity: oidc_identity::Service,
) -> Router {
    let ingest = ingest::Service {
        ledger: workers.ledger.clone(),
        enrolment: enrolment.clone(),
        health: health.clone(),
        stopping: stopping.clone(),
    };
    let queries = Queries {
        reader: workers.reader.clone(),
        limit: Duration::from_secs(config.limits.query_seconds),
        live: workers.live.clone(),
        tails: Arc::new(Semaphore::new(config.limits.max_tails)),
        health: health.clone(),
        stopping: stopping.clone(),
        questions: workers.questions.clone(),
        watch: workers.watch.clone(),
    };
    let hunts = hunt::Hunts::new(queries.clone(), health.clone());
    let query = query::Service {
        queries: queries.clone(),
        ledger: workers.ledger.clone(),
        log_directory: config.log_directory(),
        verifying: Mutex::new(None),
        health: health.clone(),
        tree: query::Tree {
            published: workers.published.clone(),
            witnesses: workers.witnesses.clone(),
            tiles: Tiles::new(&config.tree_directory()),
            log_key: workers.log_key.clone(),
        },
    };
    let files = query::files::Files {
        directory: config.tree_directory(),
        questions: workers.questions.clone(),
        health: health.clone(),
    };
    let export = Arc::new(export::Service {
        reader: workers.reader.clone(),
        limit: Duration::from_secs(config.limits.query_seconds),
        ledger: workers.ledger.clone(),
        log_directory: config.log_directory(),
        tree: query.tree.clone(),
        signer: workers.signer.clone(),
        places: Arc::new(Semaphore::new(export::AT_A_TIME)),
        acts: workers.background.acts.clone(),
        health: health.clone(),
    });
    let query = Arc::new(query);
    let web = Web { queries: query.queries.clone(), query: query.clone(), export: export.clone() };
    let hunting = hunt::Service { hunts: hunts.clone(), health: health.clone() };
    let api = Api { queries, hunts, export: export.clone() };
    let max_message = config.limits.max_batch_bytes + BATCH_FRAMING;
    let grpc = Routes::new(
        IngestServer::new(ingest)
            .max_decoding_message_size(max_message)
            .accept_compressed(CompressionEncoding::Zstd),
    )
    .add_service(IdentityServer::new(identity).max_decoding_message_size(MAX_QUESTION_BYTES))
    .add_service(EnrolmentServer::new(enrolment.clone()).max_decoding_message_size(MAX_QUESTION_BYTES))
    .add_service(AdministrationServer::new(enrolment).max_decoding_message_size(MAX_QUESTION_BYTES))
    .add_service(ExportServer::from_arc(export).max_decoding_message_size(MAX_QUESTION_BYTES))
    .add_service(
        HuntingServer::new(hunting).max_decoding_message_size(hunt::MAX_FILE_BYTES + MAX_QUESTION_BYTES),
    )
    .add_service(AccessServer::new(access.clone()).max_decoding_message_size(MAX_QUESTION_BYTES))
    .add_service(QueryServer::from_arc(query).max_decoding_message_size(MAX_QUESTION_BYTES));
    let mut http = query::files::router(files).merge(api::router(api));
    if config.web.enabled {
        http = http.merge(access::router(access.clone())).merge(web::router(web));
    }
    Server::builder()
        .accept_http1(config.web.enabled)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_routes(behind_the_gate(grpc, http, access))
}

/// All doors, so that none is without the gate.
fn behind_the_gate(mut grpc: Routes, http: axum::Router, access: Access) -> Routes {
    let router = grpc.axum_router_mut();
    *router = std::mem::take(router).merge(http).layer(from_fn_with_state(access, gate));
    grpc
}

async fn serve(
    router: Router,
    connections: mpsc::Receiver<io::Result<tls::Connection>>,
    mut background: Background,
    stop: watch::Sender<bool>,
    health: Arc<Health>,
) -> Result<(), ServeError> {
    let mut stopping = stop.subscribe();
    let stopped = async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let mut serving =
        tokio::spawn(router.serve_with_incoming_shutdown(ReceiverStream::new(connections), stopped));
    let mut asked = stop.subscribe();
    let failure = tokio::select! {
        _ = asked.wait_for(|stopping| *stopping) => None,
        failure = background.failures.recv() => failure,
        ended = &mut serving => match ended {
            // The stop may reach the serving before it reaches us.
            Ok(Ok(())) if *stop.borrow() => None,
            Ok(Ok(())) => Some("no more connections can be accepted".to_owned()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        },
    };
    stop.send_replace(true);
    if !serving.is_finished() && timeout(GRACE, &mut serving).await.is_err() {
        tracing::warn!("some streams did not end in time and are cut off");
        serving.abort();
    }
    background.finish(failure.as_deref()).await;
    health.log_totals();
    failure.map_or(Ok(()), |failure| Err(ServeError::Stopped(failure)))
}

impl Background {
    /// Writes the last entry and waits until everything is on disk.
    async fn finish(self, failure: Option<&str>) {
        if timeout(GRACE, self.notes).await.is_err() {
            tracing::warn!("not every question and refusal is in the log");
        }
        let reason = failure.unwrap_or("asked").chars().take(MAX_TEXT).collect();
        let closed = self.acts.close(Act::CollectorStopped(CollectorStopped { reason })).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the stop is not in the log");
        }
        for task in self.tasks {
            if timeout(GRACE, task).await.is_err() {
                tracing::warn!("not everything was indexed in time; the next start goes on from here");
            }
        }
    }
}
