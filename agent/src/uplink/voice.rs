//! Tells the operator about trouble with the collector: once when it begins, once when it is over.

use super::session::Failure;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    Unreachable,
    Refused(String),
}

pub(super) struct Voice {
    address: String,
    /// What was told and is not over.
    told: Option<Trouble>,
}

impl Voice {
    pub(super) fn new(address: String) -> Self {
        Self { address, told: None }
    }

    pub(super) fn tell(&mut self, failure: &Failure) {
        let trouble = match failure {
            // Of a collector that refused and is now away, the refusal is what needs a person.
            Failure::Unreachable(_) if self.told.is_some() => return,
            Failure::Unreachable(_) => Trouble::Unreachable,
            Failure::Refused(why) => Trouble::Refused(why.clone()),
        };
        if self.told.as_ref() == Some(&trouble) {
            return;
        }
        let address = &self.address;
        match failure {
            Failure::Unreachable(why) => {
                tracing::warn!("collector unreachable: {address}: {why}; events are kept in the spool");
            }
            Failure::Refused(why) => tracing::error!(
                "the collector at {address} refuses this host's events: {why}; they are kept in the spool and offered \
                 again every minute"
            ),
        }
        self.told = Some(trouble);
    }

    /// The collector acknowledged something.
    pub(super) fn delivered(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("events are delivered again to {}", self.address);
        }
    }
}
