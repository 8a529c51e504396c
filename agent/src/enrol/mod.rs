//! Enrolment: how this host comes to an identity and keeps it. `docs/formats/enrolment.md` tells the whole story.
//!
//! In: a join token, the pin of the collector's authority, or certificates that were issued by hand. Out: [`Credentials`].
//! Must never let the key leave this host, show the token to anyone but a collector of the pinned authority, or go on
//! with an identity that was made on another machine.

mod credentials;
pub mod identity;
mod store;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use buildtrail_evidence::{id::HostId, key::HostKey};
use buildtrail_proto::v1::{EnrolRequest, enrolment_client::EnrolmentClient};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tonic::Status;

pub use self::{
    credentials::{Credentials, CredentialsError},
    store::{Identity, IdentityStore, StoreError},
};
use crate::{
    config::Config,
    error::printable,
    host,
    link::{CaPin, LinkError, Meter, Route, Trust},
};

/// Largest token file, in bytes.
const MAX_TOKEN: u64 = 4096;
/// Most time that the collector may take.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// The metadata that says, in a word, why a collector refuses a host.
const REASON: &str = "buildtrail-reason";

/// Why a collector refuses this host, as far as the agent can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The certificate has expired.
    Expired,
    /// The key is in use on two machines.
    Cloned,
    /// An administrator ended this identity.
    Revoked,
}

impl Reason {
    /// What the collector said.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        match status.metadata().get(REASON)?.to_str().ok()? {
            "expired" => Some(Self::Expired),
            "cloned" => Some(Self::Cloned),
            "revoked" => Some(Self::Revoked),
            _ => None,
        }
    }

    /// What it means, and what to do.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Expired => {
                "this host's certificate has expired, and the collector does not renew it any more: make a token with \
                 `buildtrail enrol create` and run `buildtrail-agent enrol`; the host keeps its id"
            }
            Self::Cloned => {
                "this host's key is in use on two machines, as when a disk image with an identity in it is cloned: \
                 make a token with `buildtrail enrol create` and run `buildtrail-agent enrol` on each of them; they get \
                 ids of their own"
            }
            Self::Revoked => {
                "an administrator revoked this host; if it shall come back, make a token with `buildtrail enrol create` \
                 and run `buildtrail-agent enrol --new-identity`"
            }
        }
    }
}

/// Enrolling failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token file.
    #[error("cannot read the token in {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The identity's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The present identity.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The way to the collector.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The collector refuses; trying again does not help.
    #[error("the collector refuses: {0}")]
    Refused(String),
    /// The collector refuses this key.
    #[error("{}", .0.advice())]
    Identity(Reason),
    /// The connection broke or the collector failed; trying again may help.
    #[error("the collector did not answer: {0}")]
    Failed(String),
    /// The collector's answer makes no sense.
    #[error("the collector's answer cannot be used: {0}")]
    Answer(String),
}

impl EnrolError {
    /// Whether the next attempt may succeed although nobody does anything.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Link(LinkError::Unreachable(_)) | Self::Failed(_))
    }
}

/// What an enrolment needs.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// File with the token, for root alone.
    pub token_file: PathBuf,
    /// By what the collector is known.
    pub ca_pin: CaPin,
    /// Make a new key although there is one.
    pub new_identity: bool,
}

impl Enrolment {
    /// As the settings have it, if they do.
    #[must_use]
    pub fn from_settings(config: &Config) -> Option<Self> {
        let enrol = &config.enrol;
        let (token_file, ca_pin) = (enrol.token_file.clone()?, enrol.ca_pin?);
        Some(Self { token_file, ca_pin, new_identity: false })
    }

    /// Gets a certificate and keeps it; the host's id. With a key that the collector knows as cloned, a new one is made.
    ///
    /// # Errors
    /// What is missing or refused. A key that was made is used again by the next attempt.
    pub async fn run(&self, config: &Config) -> Result<HostId, EnrolError> {
        let store = IdentityStore::new(&config.host.state_directory);
        let token = read_token(&self.token_file)?;
        match self.attempt(config, &store, &token, self.new_identity).await {
            Err(EnrolError::Identity(Reason::Cloned)) => {
                tracing::warn!(
                    "the present key is in use on another machine as well; enrolling with a new one"
                );
                self.attempt(config, &store, &token, true).await
            }
            done => done,
        }
    }

    async fn attempt(
        &self,
        config: &Config,
        store: &IdentityStore,
        token: &str,
        new: bool,
    ) -> Result<HostId, EnrolError> {
        let key = store.key_to_enrol(new)?;
        let made = |error: &dyn std::fmt::Display| EnrolError::Answer(error.to_string());
        let host_key = HostKey::from_pkcs8_pem(&key).map_err(|error| made(&error))?;
        let machine = host::machine(&host_key.public());
        let request = EnrolRequest {
            token: token.to_owned(),
            certificate_request: certificate_request(&key).map_err(|error| made(&error))?,
            name: config.enrol.name.clone().unwrap_or_else(host::name),
            machine: machine.clone(),
        };
        let (route, trust) = (Route::new(&config.collector)?, Trust::pinned(self.ca_pin)?);
        let link = route.connect(&trust, &Arc::new(Meter::default())).await?;
        let mut client = EnrolmentClient::new(link.channel);
        let answer = tokio::time::timeout(ANSWER_TIME, client.enrol(request)).await;
        let answer = answer.map_err(|_| EnrolError::Failed("not in time".to_owned()))?;
        let answer = answer.map_err(|status| refusal(&status))?.into_inner();
        if !answer.authorities.iter().any(|authority| self.ca_pin.is_of(authority)) {
            return Err(EnrolError::Answer("it does not hold the authority of the pin".to_owned()));
        }
        let identity =
            Identity { key, certificate: answer.certificate, authorities: answer.authorities, machine };
        let credentials = Credentials::of_identity(&identity, &store.path()).map_err(|error| made(&error))?;
        store.save(&identity)?;
        Ok(credentials.host_id().clone())
    }
}

fn refusal(status: &Status) -> EnrolError {
    use tonic::Code;
    if let Some(reason) = Reason::of(status) {
        return EnrolError::Identity(reason);
    }
    let message = printable(status.message());
    match status.code() {
        Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => EnrolError::Refused(message),
        code if message.is_empty() => EnrolError::Failed(format!("{code:?}")),
        _ => EnrolError::Failed(message),
    }
}

/// PKCS#10: nothing but the key, signed with it.
fn certificate_request(key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}

fn read_token(path: &Path) -> Result<String, EnrolError> {
    let failed = |source| EnrolError::Token { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    io::Read::read_to_string(&mut io::Read::take(file, MAX_TOKEN), &mut text).map_err(failed)?;
    let token = text.split_whitespace().next().unwrap_or_default();
    if token.is_empty() {
        return Err(failed(io::Error::other("the file is empty")));
    }
    Ok(token.to_owned())
}
