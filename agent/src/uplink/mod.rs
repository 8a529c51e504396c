//! The uplink: carries signed batches from the spool to the collector and acknowledgements back.
//!
//! In: batches from an [`Outbox`], in order. Out: a mutually authenticated gRPC stream with several batches in
//! flight; acknowledged batches are released in the spool.
//! Must never drop a batch, acknowledge one that the collector has not confirmed, send anything in the clear, or
//! repeat the same complaint: an outage is told once when it begins and once when it is over.

mod backoff;
mod credentials;
mod session;
mod voice;

use std::time::Duration;

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

pub use self::credentials::{Credentials, CredentialsError};
use self::{
    backoff::Backoff,
    session::{End, Failure, Session},
    voice::Voice,
};
use crate::{config, error::with_causes, spool::Outbox};

/// Most time to reach the collector and agree on encryption.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long ending may take by default.
pub const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(5);

/// The uplink could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// `collector.address` is no address.
    #[error("collector.address {0:?} cannot be used: expected https://HOST:PORT")]
    Address(String),
    /// The TLS library refused the certificates.
    #[error("the certificates cannot be used: {0}")]
    Tls(String),
}

/// A running uplink.
pub struct Uplink {
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<bool>,
}

impl Uplink {
    /// Starts the uplink's task; call it within a tokio runtime. An unreachable collector is no error: it is tried
    /// again for as long as the uplink runs.
    ///
    /// # Errors
    /// The address or the certificates cannot be used at all.
    pub fn start(
        outbox: Outbox,
        collector: &config::Collector,
        credentials: &Credentials,
    ) -> Result<Self, UplinkError> {
        let endpoint = endpoint(collector, credentials)?;
        let (stop, stopping) = watch::channel(None);
        let session = Session::new(endpoint, outbox, stopping, Voice::new(collector.address.clone()));
        Ok(Self { stop, task: tokio::spawn(carry(session)) })
    }

    /// Tries for `patience` to deliver what is left in the spool, then ends. Whether everything was delivered; the
    /// rest stays in the spool. Close the spool first, so that nothing comes after.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.stop.send_replace(Some(Instant::now() + patience));
        self.task.await.unwrap_or(false)
    }
}

fn endpoint(collector: &config::Collector, credentials: &Credentials) -> Result<Endpoint, UplinkError> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(credentials.ca_pem()))
        .identity(Identity::from_pem(credentials.certificate_pem(), credentials.key_pem()));
    if let Some(name) = &collector.server_name {
        tls = tls.domain_name(name);
    }
    let endpoint = Endpoint::from_shared(collector.address.clone())
        .map_err(|_| UplinkError::Address(collector.address.clone()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tcp_keepalive(Some(KEEP_ALIVE));
    endpoint.tls_config(tls).map_err(|error| UplinkError::Tls(with_causes(&error)))
}

/// Goes from session to session until the agent ends. Whether everything was delivered.
async fn carry(mut session: Session) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let end = session.run().await;
        if session.made_progress() {
            backoff = Backoff::default();
        }
        let pause = match end {
            End::Stopped => break,
            End::Failed(Failure::Refused(_)) => backoff.longest(),
            End::Failed(Failure::Unreachable(_)) => backoff.next(),
        };
        if !wait(&mut session, pause).await {
            break;
        }
    }
    session.finish()
}

/// Waits for the next attempt; false when there is none left. Whoever must stop tries on without long pauses.
async fn wait(session: &mut Session, pause: Duration) -> bool {
    if session.deadline().is_none() {
        tokio::select! {
            () = sleep(pause) => return true,
            () = session.stop_requested() => {}
        }
    }
    let next = Instant::now() + Backoff::WHILE_STOPPING;
    match session.deadline() {
        Some(deadline) if next < deadline => {
            sleep_until(next).await;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
