//! The host's certificate: present, due for renewal, renewed.
//!
//! At two thirds of its life a new one is fetched over the connection that the present one opened; the next connection
//! shows it. An expired one is shown once more, to be renewed, which the collector allows within its grace.

use std::time::{Duration, SystemTime};

use buildtrail_proto::v1::{RenewRequest, RenewResponse, enrolment_client::EnrolmentClient};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};

use super::{Change, backoff::Backoff};
use crate::{
    config::Config,
    enrol::{Credentials, CredentialsError, IdentityStore},
};

/// The wall clock may be set meanwhile, so it is looked at this often.
const LOOK: Duration = Duration::from_mins(1);
/// Most time that the collector may take.
const TIME: Duration = Duration::from_secs(20);

/// Who this host is at present.
pub(super) struct Present {
    pub(super) credentials: Credentials,
    config: Config,
    /// Which part of the last tenth before it is due: hosts that enrolled together do not renew together.
    part: f64,
    /// The next attempt: not before this, by a clock that nobody sets.
    not_before: Option<Instant>,
    backoff: Backoff,
    /// What the collector says about the certificate counts more than this host's clock.
    refused_as_expired: Option<bool>,
}

impl Present {
    pub(super) fn new(credentials: Credentials, config: Config) -> Self {
        let backoff = Backoff::default();
        let part = backoff.part();
        Self { credentials, config, part, not_before: None, backoff, refused_as_expired: None }
    }

    /// Looks at the disk for what enrolment may have brought.
    pub(super) fn refresh(&mut self) -> Option<Change> {
        match Credentials::load(&self.config) {
            Ok(found) if found.is_other_host(&self.credentials) => Some(Change::OtherIdentity),
            Ok(found) => {
                if found.has_other_certificate(&self.credentials) {
                    self.refused_as_expired = None;
                    self.not_before = None;
                }
                self.credentials = found;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "the identity on disk cannot be read; going on with the one in memory");
                None
            }
        }
    }

    /// Whether there is another certificate on disk.
    pub(super) fn is_replaced(&self) -> bool {
        Credentials::load(&self.config).is_ok_and(|found| found.has_other_certificate(&self.credentials))
    }

    /// Whether nothing but a renewal can be done with the certificate.
    pub(super) fn must_renew(&self) -> bool {
        let expired = self.refused_as_expired.unwrap_or_else(|| self.credentials.is_expired());
        expired && self.credentials.renewal(0.0).is_some()
    }

    /// The collector refused the certificate as expired; whether a renewal may help.
    pub(super) fn refused_as_expired(&mut self) -> bool {
        self.refused_as_expired = Some(true);
        self.must_renew()
    }

    /// When to look again whether a renewal is due; `None`: never.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let due = self.credentials.renewal(self.part)?;
        let wait = due.duration_since(SystemTime::now()).unwrap_or_default().min(LOOK);
        let look = Instant::now() + wait;
        Some(self.not_before.map_or(look, |not_before| not_before.max(look)))
    }

    pub(super) fn is_due(&self) -> bool {
        let due = self.credentials.renewal(self.part).is_some_and(|due| due <= SystemTime::now());
        due && self.not_before.is_none_or(|not_before| not_before <= Instant::now())
    }

    /// Keeps the new certificate.
    pub(super) fn take(&mut self, answer: RenewResponse) -> Result<(), CredentialsError> {
        let store = IdentityStore::new(&self.config.host.state_directory);
        self.credentials = self.credentials.renewed(answer.certificate, answer.authorities, &store)?;
        self.not_before = Some(Instant::now() + self.credentials.life() / 3);
        self.backoff = Backoff::default();
        self.refused_as_expired = Some(false);
        tracing::info!("the host's certificate was renewed");
        Ok(())
    }

    /// The next attempt comes later.
    pub(super) fn failed(&mut self, error: &dyn std::fmt::Display) {
        let pause = self.backoff.next();
        self.not_before = Some(Instant::now() + pause);
        tracing::warn!("the host's certificate could not be renewed: {error}; next attempt in {pause:?}");
    }
}

/// Asks for a new certificate.
pub(super) async fn renew(channel: Channel) -> Result<RenewResponse, Status> {
    let mut client = EnrolmentClient::new(channel);
    match tokio::time::timeout(TIME, client.renew(RenewRequest {})).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("the collector did not answer in time")),
    }
}
