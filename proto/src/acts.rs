//! The words for what a collector does and notices.

use crate::v1::{CollectorEntry, collector_entry::Act};

/// Every word that [`CollectorEntry::kind`] can say.
pub const ACT_KINDS: [&str; 32] = [
    "collector.started",
    "collector.stopped",
    "log.damaged",
    "reader.asked",
    "evidence.exported",
    "token.created",
    "token.revoked",
    "host.enrolled",
    "certificate.renewed",
    "certificate.revoked",
    "host.must_enrol",
    "bodies.removed",
    "host.dark",
    "host.back",
    "host.cloned",
    "chain.fork",
    "batches.lost",
    "peers.refused",
    "witness.missing",
    "witness.back",
    "disk.full",
    "disk.back",
    "identity.checked",
    "person.signed_in",
    "person.sign_in_failed",
    "person.signed_out",
    "api_token.created",
    "api_token.revoked",
    "person.revoked",
    "admin.changed",
    "person.rights_changed",
    "unknown",
];

impl CollectorEntry {
    /// The entry's kind (`host.dark`, `reader.asked`, …); `unknown` when a newer collector wrote an act that this build
    /// does not know.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.act {
            Some(Act::CollectorStarted(_)) => "collector.started",
            Some(Act::CollectorStopped(_)) => "collector.stopped",
            Some(Act::LogDamaged(_)) => "log.damaged",
            Some(Act::ReaderAsked(_)) => "reader.asked",
            Some(Act::Exported(_)) => "evidence.exported",
            Some(Act::TokenCreated(_)) => "token.created",
            Some(Act::TokenRevoked(_)) => "token.revoked",
            Some(Act::HostEnrolled(_)) => "host.enrolled",
            Some(Act::CertificateRenewed(_)) => "certificate.renewed",
            Some(Act::CertificateRevoked(_)) => "certificate.revoked",
            Some(Act::HostMustEnrol(_)) => "host.must_enrol",
            Some(Act::BodiesRemoved(_)) => "bodies.removed",
            Some(Act::HostDark(_)) => "host.dark",
            Some(Act::HostBack(_)) => "host.back",
            Some(Act::HostCloned(_)) => "host.cloned",
            Some(Act::ChainFork(_)) => "chain.fork",
            Some(Act::BatchesLost(_)) => "batches.lost",
            Some(Act::PeersRefused(_)) => "peers.refused",
            Some(Act::WitnessMissing(_)) => "witness.missing",
            Some(Act::WitnessBack(_)) => "witness.back",
            Some(Act::DiskFull(_)) => "disk.full",
            Some(Act::DiskBack(_)) => "disk.back",
            Some(Act::IdentityChecked(_)) => "identity.checked",
            Some(Act::SignedIn(_)) => "person.signed_in",
            Some(Act::SignInFailed(_)) => "person.sign_in_failed",
            Some(Act::SignedOut(_)) => "person.signed_out",
            Some(Act::ApiTokenCreated(_)) => "api_token.created",
            Some(Act::ApiTokenRevoked(_)) => "api_token.revoked",
            Some(Act::PersonRevoked(_)) => "person.revoked",
            Some(Act::AdministratorChanged(_)) => "admin.changed",
            Some(Act::RightsChanged(_)) => "person.rights_changed",
            None => "unknown",
        }
    }

    /// The host that the entry is about, if it is about one.
    #[must_use]
    pub fn host_id(&self) -> Option<&str> {
        match self.act.as_ref()? {
            Act::HostEnrolled(act) => Some(&act.host_id),
            Act::CertificateRenewed(act) => Some(&act.host_id),
            Act::HostMustEnrol(act) => Some(&act.host_id),
            Act::HostDark(act) => Some(&act.host_id),
            Act::HostBack(act) => Some(&act.host_id),
            Act::HostCloned(act) => Some(&act.host_id),
            Act::ChainFork(act) => Some(&act.host_id),
            Act::BatchesLost(act) => Some(&act.host_id),
            Act::IdentityChecked(act) => Some(&act.host_id),
            _ => None,
        }
    }
}
