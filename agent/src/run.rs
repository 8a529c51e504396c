//! `buildtrail-agent run`: sensors, pipeline, spool and uplink together, from start to clean stop.

use std::{
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use buildtrail_agent_abi::{runner_name, variable_name};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tracing::{error, info, warn};

use crate::{
    build::{self, BuildError},
    catalog::{files, relocations, secret_paths::SecretPaths},
    clock::BootTime,
    config::{Config, HighestTier},
    control::{Asked, ControlSocket},
    enrol::{Credentials, CredentialsError, EnrolError, identity},
    host::{self, HostError},
    job::{HostIdentity, platform::Platforms, saved::StateFile, trust::Trust},
    link::LinkError,
    output::{JsonOutput, Output},
    pipeline::{Pipeline, Settings},
    sensor::{Sensor, SensorError, Wanted, coverage::Tier, loader::RingSizes, pins::PinsError},
    spool::{self, Spool, SpoolError, SpoolHandle},
    uplink::{
        Change, DEFAULT_SHUTDOWN, Uplink,
        identity::{self as proofs, Checked, Claimed},
    },
};

/// How long a disk that refuses is tried when the agent stops.
const SPOOL_PATIENCE: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the collector of the settings.
    Collector,
    /// To standard output, one JSON document a line.
    Json,
}

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel's side.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// This host's certificate or key.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What is pinned cannot be detached.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// This host's identity.
    #[error(transparent)]
    Host(#[from] HostError),
    /// This program's own executable.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Enrolment.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The way to the collector.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl RunError {
    /// The process's exit status, as the manual documents it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sensor(SensorError::NotPermitted(_)) => 3,
            Self::Sensor(
                SensorError::NoProcessHooks(_) | SensorError::NoBtf { .. } | SensorError::Load(_),
            ) => 4,
            Self::Credentials(_) | Self::Enrol(_) | Self::Link(_) => 2,
            _ => 1,
        }
    }
}

/// Runs until SIGTERM or SIGINT; begins anew when the host's identity changes.
///
/// # Errors
///
/// When the agent cannot start; nothing stays attached then.
pub async fn run(
    config: Config,
    destination: Destination,
    mut ready_file: Option<PathBuf>,
) -> Result<(), RunError> {
    let mut stop = Stop::new()?;
    loop {
        let credentials = match destination {
            Destination::Json => None,
            Destination::Collector => tokio::select! {
                credentials = identity::obtain(&config) => Some(credentials?),
                () = stop.requested() => return Ok(()),
            },
        };
        if watch(&config, credentials, ready_file.take(), &mut stop).await? == Next::Stop {
            info!("stopped");
            return Ok(());
        }
        info!("this host has another identity; beginning anew with it");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stop,
    Anew,
}

async fn watch(
    config: &Config,
    credentials: Option<Credentials>,
    ready_file: Option<PathBuf>,
    stop: &mut Stop,
) -> Result<Next, RunError> {
    let mut delivery = Delivery::start(config, credentials)?;
    let mut sensing =
        Sensing::start(config, delivery.identity.clone(), delivery.output()?, delivery.proving.take())?;
    if let Err(error) = sensing.started().await {
        delivery.stop().await;
        return Err(error);
    }
    info!("watching");
    if let Some(path) = ready_file {
        let refused = |source| RunError::System { what: "cannot write the ready file", source };
        announce(&path).map_err(refused)?;
    }
    let next = loop {
        tokio::select! {
            () = stop.requested() => break Next::Stop,
            () = sensing.ended() => {
                error!("the sensor stopped by itself");
                break Next::Stop;
            }
            change = delivery.change() => {
                if identity::replaced(config, change).await {
                    break Next::Anew;
                }
            }
        }
    };
    info!("stopping");
    sensing.stop().await;
    delivery.stop().await;
    Ok(next)
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self, RunError> {
        let refused = |what| move |source| RunError::System { what, source };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(refused("cannot wait for SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(refused("cannot wait for SIGINT"))?,
        })
    }

    /// Cancel safe.
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Appears when every sensor is attached; written under another name first, so that it is never seen half.
fn announce(path: &Path) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, "ready\n")?;
    fs::rename(temporary, path)
}

/// What carries events away: the spool, and the uplink that empties it.
pub struct Delivery {
    identity: HostIdentity,
    spool: Option<(Spool, Uplink)>,
    proving: Option<Proving>,
}

/// Where the pipeline hands in jobs' tokens, and what the collector says about them.
struct Proving {
    claims: tokio::sync::mpsc::Sender<Claimed>,
    answers: mpsc::Receiver<Checked>,
}

impl Delivery {
    /// Starts it, with credentials towards the collector; call it within a tokio runtime.
    ///
    /// # Errors
    /// This host's identity or the spool cannot be used.
    pub fn start(config: &Config, credentials: Option<Credentials>) -> Result<Self, RunError> {
        let boot_id = host::boot_id()?;
        let Some(credentials) = credentials else {
            let identity = HostIdentity { host_id: host::id_without_certificate()?, boot_id };
            return Ok(Self { identity, spool: None, proving: None });
        };
        let host_id = credentials.host_id().clone();
        let signer = spool::Identity {
            host_id: host_id.clone(),
            boot_id: boot_id.clone(),
            key: credentials.host_key()?,
            build: build::describe(config)?,
        };
        let spool = Spool::start(&config.host.state_directory, &config.spool, signer)?;
        let (tell, answers) = mpsc::channel();
        let (claims, proofs) = proofs::way(tell);
        let uplink = Uplink::start(spool.outbox(), config, credentials, &boot_id, proofs)?;
        Ok(Self {
            identity: HostIdentity { host_id, boot_id },
            spool: Some((spool, uplink)),
            proving: Some(Proving { claims, answers }),
        })
    }

    /// Waits until the identity is of no use any more. Cancel safe.
    async fn change(&mut self) -> Change {
        match &mut self.spool {
            Some((_, uplink)) => uplink.change().await,
            None => std::future::pending().await,
        }
    }

    fn output(&self) -> Result<Output, RunError> {
        if let Some(spool) = self.spool() {
            return Ok(Output::Spool(spool));
        }
        let json = JsonOutput::start(self.identity.clone(), std::io::stdout());
        json.map(Output::Json).map_err(|source| RunError::System { what: "cannot start the output", source })
    }

    /// The way into the spool; `None` when events go elsewhere.
    #[must_use]
    pub fn spool(&self) -> Option<SpoolHandle> {
        self.spool.as_ref().map(|(spool, _)| spool.handle())
    }

    /// Writes everything to disk and tries to deliver it.
    pub async fn stop(self) {
        let Some((spool, uplink)) = self.spool else { return };
        let closed = tokio::task::spawn_blocking(move || spool.shutdown(SPOOL_PATIENCE)).await;
        if let Ok(stats) = closed
            && stats.lost_events > 0
        {
            error!(lost = stats.lost_events, "events were lost");
        }
        if !uplink.shutdown(DEFAULT_SHUTDOWN).await {
            info!("the collector does not have everything yet; the rest is in the spool");
        }
    }
}

/// The thread of sensors and pipeline.
struct Sensing {
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    started: Option<oneshot::Receiver<Result<(), SensorError>>>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    /// Absent where none can be.
    _control: Option<ControlSocket>,
}

impl Sensing {
    fn start(
        config: &Config,
        identity: HostIdentity,
        output: Output,
        proving: Option<Proving>,
    ) -> Result<Self, RunError> {
        let refused = |what| move |source| RunError::System { what, source };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_value_and_flags(0, flags).map_err(std::io::Error::from);
        let wake = Arc::new(wake.map_err(refused("cannot make an event descriptor"))?);
        let stop = Arc::new(AtomicBool::new(false));
        let (control, questions) = listen(&config.hooks.socket, &wake);
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let (config, thread_wake, thread_stop) = (config.clone(), Arc::clone(&wake), Arc::clone(&stop));
        let work = move || {
            match start_sensor(&config) {
                Ok((sensor, platforms)) => {
                    let boot_id = identity.boot_id.clone();
                    let settings = Settings {
                        platforms,
                        trust: Trust::new(&config.runners),
                        job_idle: config.runners.job_idle(),
                    };
                    let secrets = SecretPaths::new(&config.catalog);
                    let mut pipeline = Pipeline::new(identity, settings, output).with_secrets(secrets);
                    // Without pinned programs the kernel side has forgotten who belongs to whom.
                    let pinned = config.sensor.pin_directory.is_some();
                    let state = pinned.then(|| StateFile::in_directory(&config.host.state_directory));
                    if let Some(file) = &state {
                        pipeline.resume(file.read(boot_id.as_str()), &sensor.members());
                    }
                    pipeline.recover();
                    let (claims, answers) = proving.map(|proving| (proving.claims, proving.answers)).unzip();
                    pipeline.prove_with(claims);
                    let answers = answers.as_ref();
                    let signals =
                        Signals { wake: &thread_wake, stop: &thread_stop, questions: &questions, answers };
                    sense(sensor, pipeline, state.as_ref(), signals, tell_started);
                }
                Err(error) => {
                    output.finish();
                    let _receiver_may_be_gone = tell_started.send(Err(error));
                }
            }
            let _receiver_may_be_gone = tell_ended.send(());
        };
        let thread = thread::Builder::new().name("sensor".into()).spawn(work);
        let thread = thread.map_err(refused("cannot start the sensor's thread"))?;
        Ok(Self { stop, wake, started: Some(started), ended, thread, _control: control })
    }

    async fn started(&mut self) -> Result<(), RunError> {
        let ended = || SensorError::Load("the sensor's thread ended unexpectedly".to_owned());
        match self.started.take() {
            Some(started) => Ok(started.await.unwrap_or_else(|_| Err(ended()))?),
            None => Ok(()),
        }
    }

    async fn ended(&mut self) {
        let _either_way_it_ended = (&mut self.ended).await;
    }

    /// Reports everything that the kernel has captured, then ends.
    async fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.wake.write(1) {
            error!(%error, "the sensor cannot be woken");
        }
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("the sensor's thread ended unexpectedly");
        }
    }
}

/// Attaches the sensors as the settings want them.
///
/// # Errors
///
/// See [`Sensor::start`].
pub fn start_sensor(config: &Config) -> Result<(Sensor, Platforms), SensorError> {
    let platforms = Platforms::new(config).map_err(Box::new)?;
    let variables = platforms.variables();
    let identity = variables.iter().filter_map(|name| variable_name(name));
    let names = identity.chain(relocations::variables().filter_map(variable_name));
    let sensor = Sensor::start(Wanted {
        rings: RingSizes { critical: config.sensor.critical_ring_bytes, bulk: config.sensor.bulk_ring_bytes },
        variables: names.collect(),
        runner_names: platforms.runner_names().iter().map(|name| runner_name(name)).collect(),
        targets: files::targets(&config.catalog),
        anywhere: files::anywhere(),
        highest: match config.sensor.highest_tier {
            HighestTier::A => Tier::A,
            HighestTier::B => Tier::B,
        },
        writes: config.sensor.watch_writes,
        pin_directory: config.sensor.pin_directory.clone(),
    })?;
    Ok((sensor, platforms))
}

/// The socket for hooks. Without one the agent sees jobs all the same.
fn listen(path: &Path, wake: &Arc<EventFd>) -> (Option<ControlSocket>, mpsc::Receiver<Asked>) {
    match ControlSocket::listen(path, Arc::clone(wake)) {
        Ok((socket, questions)) => (Some(socket), questions),
        Err(error) => {
            warn!(%error, "runners' hooks are not heard");
            (None, mpsc::channel().1)
        }
    }
}

/// What the sensors' thread hears beside the sensors.
#[derive(Clone, Copy)]
struct Signals<'a> {
    wake: &'a EventFd,
    stop: &'a AtomicBool,
    questions: &'a mpsc::Receiver<Asked>,
    answers: Option<&'a mpsc::Receiver<Checked>>,
}

fn sense(
    mut sensor: Sensor,
    mut pipeline: Pipeline,
    state: Option<&StateFile>,
    Signals { wake, stop, questions, answers }: Signals<'_>,
    tell_started: oneshot::Sender<Result<(), SensorError>>,
) {
    pipeline.report_coverage(&sensor.coverage);
    sensor.follow(pipeline.take_wishes());
    let _receiver_may_be_gone = tell_started.send(Ok(()));
    while !stop.load(Ordering::Acquire) {
        if let Err(error) = sensor.wait(wake.as_fd(), pipeline.patience()) {
            error!(%error, "the sensor stops");
            break;
        }
        // Before the sensors are read: whoever asks is then known.
        let asked: Vec<Asked> = questions.try_iter().collect();
        pipeline.process(sensor.drain());
        for asked in asked {
            pipeline.take_hook(asked, BootTime::now());
        }
        for checked in answers.iter().flat_map(|answers| answers.try_iter()) {
            pipeline.take_checked(checked, BootTime::now());
        }
        pipeline.tick(BootTime::now(), &|| sensor.counters());
        sensor.follow(pipeline.take_wishes());
        if let Some(file) = state
            && let Some(saved) = pipeline.take_changed_state()
        {
            file.write(&saved);
        }
    }
    pipeline.process(sensor.drain_at_the_end());
    sensor.follow(pipeline.take_wishes());
    let saved = pipeline.finish(&|| sensor.counters());
    if let Some(file) = state {
        file.write(&saved);
        sensor.note_reported();
    }
}
