//! Which identity a running agent has: the one on disk, or one that it enrols for by itself where the settings say how.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Credentials, CredentialsError, EnrolError, Enrolment, Reason};
use crate::{config::Config, uplink::Change};

/// Pause after a collector could not be reached.
const PAUSE: Duration = Duration::from_secs(5);

/// The identity to begin with. Without one, or with one from another machine, the host enrols, if the settings name token
/// and pin; that is tried until the collector can be reached. Cancel safe: what was begun is gone on with.
///
/// # Errors
/// There is no usable identity, or the collector refuses to give one.
pub async fn obtain(config: &Config) -> Result<Credentials, EnrolError> {
    let new_identity = match Credentials::load(config) {
        Ok(credentials) => return Ok(credentials),
        Err(CredentialsError::OtherMachine(_)) => true,
        Err(CredentialsError::None(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let Some(enrolment) = Enrolment::from_settings(config) else {
        return Ok(Credentials::load(config)?);
    };
    let enrolment = Enrolment { new_identity, ..enrolment };
    let mut told = false;
    loop {
        match enrolment.run(config).await {
            Ok(id) => {
                info!(host = %id, "enrolled");
                return Ok(Credentials::load(config)?);
            }
            Err(error) if error.may_pass() => {
                if !std::mem::replace(&mut told, true) {
                    warn!("this host has no identity and cannot enrol yet: {error}; trying on");
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a running agent does when its identity is of no use; whether there is another one now.
pub async fn replaced(config: &Config, change: Change) -> bool {
    let new_identity = match change {
        Change::OtherIdentity => return true,
        Change::Refused(Reason::Cloned) => true,
        Change::Refused(Reason::Expired) => false,
        // Whoever revoked this host did not want it back at once.
        Change::Refused(Reason::Revoked) => return false,
    };
    let Some(enrolment) = Enrolment::from_settings(config) else { return false };
    match (Enrolment { new_identity, ..enrolment }).run(config).await {
        Ok(id) => {
            info!(host = %id, "enrolled anew");
            true
        }
        Err(error) => {
            error!("this host cannot enrol anew: {error}");
            false
        }
    }
}
