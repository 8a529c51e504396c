//! Tells the operator about trouble with the collector: once when it begins, once when it is over.

use super::session::Failure;
use crate::enrol::Reason;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Unreachable,
    Refused(String),
    Identity(Reason),
}

pub(super) struct Voice {
    addresses: String,
    /// What was told and is not over.
    told: Option<Trouble>,
}

impl Voice {
    pub(super) fn new(addresses: String) -> Self {
        Self { addresses, told: None }
    }

    pub(super) fn tell(&mut self, failure: &Failure) {
        let trouble = match failure {
            // Of a collector that refused and is now away, the refusal is what needs a person.
            Failure::Unreachable(_) if self.told.is_some() => return,
            Failure::Unreachable(_) => Trouble::Unreachable,
            Failure::Refused(why) => Trouble::Refused(why.clone()),
            Failure::Identity(reason) => Trouble::Identity(*reason),
        };
        if self.told.as_ref() == Some(&trouble) {
            return;
        }
        let address = &self.addresses;
        match failure {
            Failure::Unreachable(why) => {
                tracing::warn!("collector unreachable: {address}: {why}; events are kept in the spool");
            }
            Failure::Refused(why) => tracing::error!(
                "the collector at {address} refuses this host's events: {why}; they are kept in the spool and offered \
                 again every minute"
            ),
            Failure::Identity(reason) => {
                tracing::error!("{}; until then events are kept in the spool", reason.advice());
            }
        }
        self.told = Some(trouble);
    }

    /// The collector acknowledged something.
    pub(super) fn delivered(&mut self, address: &str) {
        if self.told.take().is_some() {
            tracing::info!("events are delivered again to {address}");
        }
    }
}
