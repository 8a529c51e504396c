//! What the collector did and noticed, in one sentence.

use std::collections::BTreeMap;

use buildtrail_proto::v1::{CollectorEntry, IdentityChecked, collector_entry::Act};

/// The entry in words; text in it is as it came and still has to be made safe.
#[must_use]
pub fn what(entry: &CollectorEntry) -> String {
    let Some(act) = &entry.act else { return "an act that this version does not know".into() };
    match act {
        Act::CollectorStarted(act) => format!("version {}", act.version),
        Act::CollectorStopped(act) => act.reason.clone(),
        Act::LogDamaged(act) => format!("records {}: {}", range(act.first_record, act.end_record), act.what),
        Act::ReaderAsked(act) => {
            let times = if act.count > 1 { format!(" ({} times)", act.count) } else { String::new() };
            let what = if act.what.is_empty() { String::new() } else { format!(": {}", act.what) };
            format!("{} {}{what}{times}", act.reader, act.call)
        }
        Act::Exported(act) => format!("{}: {}, {} events", act.reader, act.what, act.events),
        Act::TokenCreated(act) => format!("token {} by {}, {} uses", act.token_id, act.by, act.uses),
        Act::TokenRevoked(act) => format!("token {} by {}: {}", act.token_id, act.by, act.reason),
        Act::HostEnrolled(act) => {
            format!("{} ({}) from {} with token {}", act.name, act.host_id, act.peer, act.token_id)
        }
        Act::CertificateRenewed(act) => format!("{} from {}", act.host_id, act.peer),
        Act::CertificateRevoked(act) => format!("{} by {}: {}", act.subject, act.by, act.reason),
        Act::HostMustEnrol(act) => format!("{}: {}", act.host_id, act.reason),
        Act::BodiesRemoved(act) => format!(
            "records {}, {} events of {} batches: {}{}",
            range(act.first_record, act.end_record),
            act.events,
            act.batches,
            act.why,
            counts(&act.counts)
        ),
        Act::HostDark(act) => format!(
            "{} ({}) silent for {} s, {} jobs ran",
            act.name,
            act.host_id,
            act.silent_seconds,
            act.jobs.len() + usize::try_from(act.more_jobs).unwrap_or_default()
        ),
        Act::HostBack(act) => {
            format!("{} ({}) after {} s of silence", act.name, act.host_id, act.silent_seconds)
        }
        Act::HostCloned(act) => format!("{} ({}): {}", act.name, act.host_id, act.what),
        Act::ChainFork(act) => {
            format!("{} ({}): another batch {} than the one in the log", act.name, act.host_id, act.number)
        }
        Act::BatchesLost(act) => format!(
            "{} ({}): batches {}–{} were lost on the host, which says so itself",
            act.name, act.host_id, act.first, act.last
        ),
        Act::PeersRefused(act) => {
            format!("{} times for {}, first {}: {}", act.count, act.reason, act.peer, act.detail)
        }
        Act::WitnessMissing(act) => format!("{}: {}", act.name, act.reason),
        Act::WitnessBack(act) => format!("{}, {} checkpoints without it", act.name, act.missed),
        Act::IdentityChecked(act) => identity(act),
        Act::DiskFull(act) => format!("{} bytes free: {}", act.free_bytes, act.reason),
        Act::DiskBack(act) => format!("{} bytes free, {} batches were refused", act.free_bytes, act.refused),
        Act::SignedIn(act) => {
            let how = if act.recovery_code { ", with a recovery code" } else { "" };
            format!("{} from {}: {} of {}{how}", act.person, act.peer, act.role, act.scope)
        }
        Act::SignInFailed(act) => {
            format!("{} times as {:?}, first from {}: {}", act.count, act.person, act.peer, act.reason)
        }
        Act::SignedOut(act) => format!("{}: {}", act.person, act.reason),
        Act::ApiTokenCreated(act) => {
            format!("token {} ({}) of {}: {} of {}", act.token_id, act.name, act.owner, act.role, act.scope)
        }
        Act::ApiTokenRevoked(act) => format!("token {} of {} by {}", act.token_id, act.owner, act.by),
        Act::PersonRevoked(act) => format!("{} by {}: {}", act.person, act.by, act.reason),
        Act::AdministratorChanged(act) => format!("{} {} by {}", act.name, act.what, act.by),
        Act::RightsChanged(act) => format!("{}: {} before, now {}", act.person, act.before, act.after),
    }
}

fn identity(act: &IdentityChecked) -> String {
    let result = act.result.clone().unwrap_or_default();
    let differing: Vec<String> = result
        .differing
        .iter()
        .map(|claim| format!("{} {} instead of {}", claim.name, claim.claimed, claim.known))
        .collect();
    let outcome = match (act.verified, differing.is_empty(), result.refused.is_empty()) {
        (true, ..) => format!("verified by {}", result.issuer),
        (false, false, _) => format!("{} says {}", result.issuer, differing.join(", ")),
        (false, true, false) => format!("not verified: {}", result.refused),
        (false, true, true) => "not verified: the token does not name the run".to_owned(),
    };
    format!("job {} of {}: {outcome}", act.job_id, act.host_id)
}

fn range(first: u64, end: u64) -> String {
    format!("{first}–{}", end.saturating_sub(1))
}

fn counts(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::{BodiesRemoved, ReaderAsked};

    use super::*;

    #[test]
    fn an_act_is_one_sentence() {
        let asked = ReaderAsked {
            reader: "alice".into(),
            call: "ListEvents".into(),
            what: "kinds secret.access".into(),
            count: 3,
            ..ReaderAsked::default()
        };
        let entry = |act| CollectorEntry { time: None, act: Some(act) };
        assert_eq!(what(&entry(Act::ReaderAsked(asked))), "alice ListEvents: kinds secret.access (3 times)");
        let removed = BodiesRemoved {
            first_record: 0,
            end_record: 10,
            why: "older than 90 days".into(),
            batches: 9,
            events: 12,
            counts: [("process.exec".to_owned(), 10), ("heartbeat".to_owned(), 2)].into(),
        };
        let expected =
            "records 0–9, 12 events of 9 batches: older than 90 days (2 heartbeat, 10 process.exec)";
        assert_eq!(what(&entry(Act::BodiesRemoved(removed))), expected);
        assert!(what(&CollectorEntry::default()).contains("does not know"));
    }
}
