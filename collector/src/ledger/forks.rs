//! Second histories of hosts: each is a detection, once.

use std::collections::{HashMap, HashSet};

use buildtrail_evidence::{digest::Digest, id::HostId};
use buildtrail_proto::v1::{ChainFork, SignedBatch, collector_entry::Act};

use crate::peer::Host;

/// Most forks of one host that are noted one by one; further ones are only counted.
const MAX_FORKS: usize = 16;

/// Forks that are in the log already.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    by_host: HashMap<HostId, HashSet<Digest>>,
}

impl Forks {
    /// A fork that the log tells of.
    pub(crate) fn known(&mut self, fork: &ChainFork) {
        if let Ok(host) = HostId::parse(&fork.host_id) {
            self.by_host.entry(host).or_default().insert(Digest::of(&fork.header));
        }
    }

    /// The detection for a batch that contradicts the log; `None`: it is noted already.
    pub(super) fn detect(&mut self, host: &Host, batch: &SignedBatch, number: u64) -> Option<Act> {
        let noted = self.by_host.entry(host.id.clone()).or_default();
        if noted.len() >= MAX_FORKS || !noted.insert(Digest::of(&batch.header)) {
            return None;
        }
        tracing::error!(host = %host.id, name = host.name, number, "a second history of this host");
        Some(Act::ChainFork(ChainFork {
            host_id: host.id.to_string(),
            name: host.name.clone(),
            number,
            header: batch.header.clone(),
            signature: batch.signature.clone(),
            peer: String::new(),
        }))
    }
}
