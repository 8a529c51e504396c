//! The uplink: carries signed batches from the spool to the collector and acknowledgements back.
//!
//! In: batches from an [`Outbox`], in order. Out: a mutually authenticated gRPC stream with several batches in
//! flight, compressed; acknowledged batches are released in the spool. It also renews the host's certificate and answers
//! when the collector asks whether this end is still there.
//! Must never drop a batch, acknowledge one that the collector has not confirmed, send anything in the clear, or
//! repeat the same complaint: an outage is told once when it begins and once when it is over.

mod backoff;
pub mod identity;
mod renewal;
mod session;
mod voice;

use std::time::Duration;

use buildtrail_evidence::id::BootId;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use self::{
    backoff::Backoff,
    identity::Proofs,
    session::{End, Failure, Session, Work},
    voice::Voice,
};
use crate::{
    config::Config,
    enrol::{Credentials, Reason},
    link::{LinkError, Route},
    spool::Outbox,
};

/// How often a waiting uplink looks for a new identity.
const LOOK: Duration = Duration::from_secs(2);
/// How long ending may take by default.
pub const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(5);

/// Why the agent should begin anew with another identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The host was enrolled anew while the agent ran.
    OtherIdentity,
    /// The collector refuses the present one.
    Refused(Reason),
}

/// A running uplink.
pub struct Uplink {
    stop: watch::Sender<Option<Instant>>,
    change: watch::Receiver<Option<Change>>,
    task: JoinHandle<bool>,
}

impl Uplink {
    /// Starts the uplink's task; call it within a tokio runtime. An unreachable collector is no error: it is tried
    /// again for as long as the uplink runs.
    ///
    /// # Errors
    /// The addresses, the proxy or the certificates cannot be used at all.
    pub fn start(
        outbox: Outbox,
        config: &Config,
        credentials: Credentials,
        boot_id: &BootId,
        proofs: Proofs,
    ) -> Result<Self, LinkError> {
        let route = Route::new(&config.collector)?;
        credentials.trust()?;
        let (stop, stopping) = watch::channel(None);
        let (changed, change) = watch::channel(None);
        let work = Work { outbox, proofs };
        let session = Session::new(route, config.clone(), credentials, boot_id, work, stopping, changed);
        Ok(Self { stop, change, task: tokio::spawn(carry(session)) })
    }

    /// Waits until it turns out (again) that the present identity is of no use. Cancel safe.
    pub async fn change(&mut self) -> Change {
        while self.change.changed().await.is_ok() {
            if let Some(change) = *self.change.borrow_and_update() {
                return change;
            }
        }
        std::future::pending().await
    }

    /// Tries for `patience` to deliver what is left in the spool, then ends. Whether everything was delivered; the
    /// rest stays in the spool. Close the spool first, so that nothing comes after.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.stop.send_replace(Some(Instant::now() + patience));
        self.task.await.unwrap_or(false)
    }
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
            End::Failed(Failure::Refused(_) | Failure::Identity(_)) => backoff.longest(),
            End::Again | End::Failed(Failure::Unreachable(_)) => backoff.next(),
        };
        if !wait(&mut session, pause).await {
            break;
        }
    }
    session.finish()
}

/// Waits for the next attempt; false when there is none left. Whoever must stop tries on without long pauses.
async fn wait(session: &mut Session, pause: Duration) -> bool {
    let end = Instant::now() + pause;
    while session.deadline().is_none() {
        if Instant::now() >= end || session.has_new_identity() {
            return true;
        }
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + LOOK)) => {}
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
