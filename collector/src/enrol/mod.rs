//! Enrolment: how hosts come to certificates, keep them and lose them. `docs/formats/enrolment.md` tells the whole story.
//!
//! In: join tokens, certificate requests, hosts that open a stream, and administrators' orders. Out: certificates, or
//! refusals with a word for programs; streams that end within moments of a revocation; entries in the log.
//! Must never keep a token's secret, sign a key that did not sign its request, or take one host for two without proof.

mod admin;
mod authority;
mod clones;
mod control;
mod reason;
mod record;
mod service;
mod sessions;
mod token;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use buildtrail_evidence::id::{BootId, HostId};
use buildtrail_proto::Timestamp;
use rustls::pki_types::CertificateDer;
use tonic::{Request, Status};

pub(crate) use self::{
    authority::Authority,
    clones::Hello,
    control::Control,
    reason::{Reason, refuse},
    sessions::{Ended, Session},
};
use self::{authority::unix_seconds, control::State, sessions::Sessions};
pub use self::{
    authority::{AuthorityError, pin_of_pem},
    control::ControlError,
};
use crate::{
    acts::Acts,
    health::{Health, Refusal},
};

/// Which machine: 64 hexadecimal digits, a digest of its machine id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Machine(String);

impl Machine {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        valid.then(|| Self(text.to_ascii_lowercase()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Everything about hosts' identities. Clones share one state.
#[derive(Clone)]
pub(crate) struct Enrolment(Arc<Inner>);

struct Inner {
    control: Arc<Mutex<Control>>,
    /// `None`: enrolment and renewal are off.
    authority: Option<Authority>,
    authorities: Vec<CertificateDer<'static>>,
    /// How long certificates last, in seconds.
    lifetime: u64,
    /// How long after its end a certificate may be renewed, in seconds.
    grace: u64,
    sessions: Arc<Sessions>,
    /// Newcomers of one host are looked at one after the other.
    newcomers: clones::Queues,
    acts: Acts,
    health: Arc<Health>,
}

impl Enrolment {
    pub(crate) fn new(
        control: Control,
        authority: Option<Authority>,
        authorities: Vec<CertificateDer<'static>>,
        settings: &crate::config::Enrol,
        acts: Acts,
        health: Arc<Health>,
    ) -> Self {
        Self(Arc::new(Inner {
            control: Arc::new(Mutex::new(control)),
            authority,
            authorities,
            lifetime: settings.certificate_lifetime.seconds(),
            grace: settings.grace.seconds(),
            sessions: Arc::default(),
            newcomers: clones::Queues::default(),
            acts,
            health,
        }))
    }

    /// Works with the record of hosts and tokens, where waiting for the disk is allowed.
    async fn with_control<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Status> {
        let control = self.0.control.clone();
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut control.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match worked.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(internal(&error)),
            Err(error) => Err(internal(&error)),
        }
    }

    /// Ends a host's identity and its streams.
    async fn end_identity(&self, host: &HostId, state: State, why: Ended) -> Result<(), Status> {
        let id = host.clone();
        self.with_control(move |control| control.set_state(&id, state)).await?;
        self.0.sessions.end(host, why);
        Ok(())
    }
}

fn internal(error: &dyn std::fmt::Display) -> Status {
    tracing::error!(%error, "enrolment failed");
    Status::internal("the collector cannot do this now; its own log says why")
}

fn now() -> i64 {
    unix_seconds(SystemTime::now())
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// Boot and machine, as a host says at the beginning of a stream.
pub(crate) fn hello<T>(request: &Request<T>) -> Result<Hello, Status> {
    let field = |name: &str| request.metadata().get(name).and_then(|value| value.to_str().ok());
    let boot = field("buildtrail-boot").and_then(|boot| BootId::parse(boot).ok());
    let machine = field("buildtrail-machine").and_then(Machine::parse);
    match (boot, machine) {
        (Some(boot), Some(machine)) => Ok(Hello { boot, machine }),
        _ => Err(Status::invalid_argument(
            "the stream's metadata must hold buildtrail-boot and buildtrail-machine; use an agent of this version",
        )),
    }
}

/// Refuses a host whose identity no longer counts.
fn ensure_active(state: State, host: &crate::peer::Host, health: &Health) -> Result<(), Status> {
    match state {
        State::Active => Ok(()),
        State::Cloned => {
            health.refuse(Refusal::Cloned, &host.id, "its key is in use on two machines");
            Err(refuse(Reason::Cloned))
        }
        State::Revoked => {
            health.refuse(Refusal::Revoked, &host.id, "its certificate is revoked");
            Err(refuse(Reason::Revoked))
        }
    }
}
