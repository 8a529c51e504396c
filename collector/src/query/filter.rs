//! What an `EventFilter` means, for stored and for live events.

use buildtrail_proto::{
    EVENT_KINDS, Timestamp, unix_nanos,
    v1::{AuditEvent, EventFilter},
};
use tonic::Status;

use crate::store::{Asked, JobRow, Resolved, Selection};

/// Refuses what no event can match because it is misspelt.
pub(super) fn check(filter: &EventFilter) -> Result<(), Status> {
    if let Some(unknown) = filter.kinds.iter().find(|kind| !EVENT_KINDS.contains(&kind.as_str())) {
        let message =
            format!("there is no kind of event {unknown:?}; the kinds are {}", EVENT_KINDS.join(", "));
        return Err(Status::invalid_argument(message));
    }
    if filter.kinds.len() > EVENT_KINDS.len() {
        return Err(Status::invalid_argument("a kind is named twice"));
    }
    if filter.outside_jobs && !(filter.job_id.is_empty() && filter.repository.is_empty()) {
        let message = "events outside any job belong to no job and no repository; leave one of the two out";
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

/// Nanoseconds since 1970, from (inclusive) and to (exclusive); open ends reach as far as 64 bits.
pub(super) fn span(since: Option<&Timestamp>, until: Option<&Timestamp>) -> (i64, i64) {
    (since.map_or(i64::MIN, nanos), until.map_or(i64::MAX, nanos))
}

fn nanos(time: &Timestamp) -> i64 {
    let nanos = unix_nanos(time);
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The stored events that match.
pub(super) fn selection(filter: &EventFilter, asked: &Asked) -> Result<Selection, Status> {
    let mut selection = Selection::default();
    if !filter.job_id.is_empty() {
        selection.job(job(&filter.job_id, asked)?);
    }
    if !filter.kinds.is_empty() {
        selection.kinds(&filter.kinds);
    }
    if !filter.host_id.is_empty() {
        selection.host(&filter.host_id);
    }
    if !filter.repository.is_empty() {
        selection.repository(&filter.repository);
    }
    if let Some(since) = &filter.since {
        selection.since(nanos(since));
    }
    if let Some(until) = &filter.until {
        selection.until(nanos(until));
    }
    if filter.outside_jobs {
        selection.outside_jobs();
    }
    Ok(selection)
}

/// The one job that an id or the beginning of one names.
pub(crate) fn job(prefix: &str, asked: &Asked) -> Result<JobRow, Status> {
    if prefix.is_empty() {
        return Err(Status::invalid_argument("give a job id, or the beginning of one"));
    }
    match asked.resolve(prefix)? {
        Resolved::One(job) => Ok(job),
        Resolved::None => Err(Status::not_found(format!("no such job: no job id begins with {prefix:?}"))),
        Resolved::Several(ids) => Err(ambiguous(prefix, &ids)),
    }
}

/// A live filter may name a job that is still to come, but not several that are there.
pub(super) fn ensure_unambiguous(filter: &EventFilter, asked: &Asked) -> Result<(), Status> {
    if filter.job_id.is_empty() {
        return Ok(());
    }
    match asked.resolve(&filter.job_id)? {
        Resolved::Several(ids) => Err(ambiguous(&filter.job_id, &ids)),
        Resolved::One(_) | Resolved::None => Ok(()),
    }
}

fn ambiguous(prefix: &str, ids: &[String]) -> Status {
    let ids: Vec<String> = ids.iter().map(|id| format!("{id:?}")).collect();
    let ids = ids.join(", ");
    Status::invalid_argument(format!(
        "job id {prefix:?} is ambiguous; these begin with it, perhaps among others: {ids}"
    ))
}

/// Whether a live event matches.
pub(super) fn matches(filter: &EventFilter, event: &AuditEvent) -> bool {
    let job = event.job.as_ref();
    let time = event.time.as_ref().map_or(0, nanos);
    let (since, until) = span(filter.since.as_ref(), filter.until.as_ref());
    let wants = |wanted: &str, found: Option<&String>| {
        wanted.is_empty() || found.is_some_and(|found| found == wanted)
    };
    (filter.job_id.is_empty() || job.is_some_and(|job| job.job_id.starts_with(&filter.job_id)))
        && (filter.kinds.is_empty() || filter.kinds.iter().any(|kind| kind == event.kind()))
        && wants(&filter.host_id, Some(&event.host_id))
        && wants(&filter.repository, job.map(|job| &job.repository))
        && (since..until).contains(&time)
        && !(filter.outside_jobs && job.is_some())
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::{Heartbeat, Job, audit_event::Body};

    use super::*;

    fn event() -> AuditEvent {
        let job = Job { job_id: "0123abcd".into(), repository: "acme/widgets".into(), ..Job::default() };
        AuditEvent {
            host_id: "h1".into(),
            time: Some(Timestamp { seconds: 100, nanos: 0 }),
            job: Some(job),
            body: Some(Body::Heartbeat(Heartbeat::default())),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn each_field_of_a_live_filter_narrows() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let matching = [
            EventFilter::default(),
            EventFilter { job_id: "0123".into(), ..EventFilter::default() },
            EventFilter { kinds: vec!["loss".into(), "heartbeat".into()], ..EventFilter::default() },
            EventFilter { host_id: "h1".into(), repository: "acme/widgets".into(), ..EventFilter::default() },
            EventFilter { since: at(100), until: at(101), ..EventFilter::default() },
        ];
        for filter in matching {
            assert!(matches(&filter, &event()), "{filter:?}");
        }
        let others = [
            EventFilter { job_id: "123".into(), ..EventFilter::default() },
            EventFilter { kinds: vec!["loss".into()], ..EventFilter::default() },
            EventFilter { host_id: "h".into(), ..EventFilter::default() },
            EventFilter { repository: "acme".into(), ..EventFilter::default() },
            EventFilter { since: at(101), ..EventFilter::default() },
            EventFilter { until: at(100), ..EventFilter::default() },
            EventFilter { outside_jobs: true, ..EventFilter::default() },
        ];
        for filter in others {
            assert!(!matches(&filter, &event()), "{filter:?}");
        }
        assert!(matches(
            &EventFilter { outside_jobs: true, ..EventFilter::default() },
            &AuditEvent::default()
        ));
    }

    #[test]
    fn misspelt_and_contradictory_filters_are_explained() {
        let misspelt = EventFilter { kinds: vec!["secret.acess".into()], ..EventFilter::default() };
        assert!(check(&misspelt).unwrap_err().message().contains("secret.access"));
        let contradictory = EventFilter { outside_jobs: true, job_id: "1".into(), ..EventFilter::default() };
        assert!(check(&contradictory).is_err());
    }
}
