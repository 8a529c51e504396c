//! What a reader asked for, in words: for the log.

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{EventFilter, ListActsRequest, ListJobsRequest, ProveEventRequest},
};

pub(super) fn filter(filter: &EventFilter) -> String {
    let mut words = Words::default();
    words.add("job", &filter.job_id);
    words.add("kinds", &filter.kinds.join(" "));
    words.add("host", &filter.host_id);
    words.add("repository", &filter.repository);
    words.span(filter.since.as_ref(), filter.until.as_ref());
    if filter.outside_jobs {
        words.0.push("outside jobs".into());
    }
    words.done()
}

pub(super) fn jobs(request: &ListJobsRequest) -> String {
    let mut words = Words::default();
    words.add("repository", &request.repository);
    words.span(request.since.as_ref(), request.until.as_ref());
    words.done()
}

pub(super) fn acts(request: &ListActsRequest) -> String {
    let mut words = Words::default();
    words.add("kinds", &request.kinds.join(" "));
    words.add("host", &request.host_id);
    words.span(request.since.as_ref(), request.until.as_ref());
    words.done()
}

pub(super) fn job(id: &str) -> String {
    format!("job {id}")
}

pub(super) fn event(request: &ProveEventRequest) -> String {
    format!("event {} of boot {} of host {}", request.sequence, request.boot_id, request.host_id)
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(format!("{name} {value}"));
        }
    }

    fn span(&mut self, since: Option<&Timestamp>, until: Option<&Timestamp>) {
        self.add("since", &since.map(utc).unwrap_or_default());
        self.add("until", &until.map(utc).unwrap_or_default());
    }

    fn done(self) -> String {
        self.0.join(", ")
    }
}

/// RFC 3339, or the bare number where that has no name for it.
fn utc(time: &Timestamp) -> String {
    let nanos = unix_nanos(time);
    jiff::Timestamp::from_nanosecond(nanos).map_or_else(|_| nanos.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_described_by_its_conditions() {
        assert_eq!(filter(&EventFilter::default()), "");
        let asked = EventFilter {
            job_id: "0aaa".into(),
            kinds: vec!["secret.access".into(), "loss".into()],
            since: Some(Timestamp { seconds: 1_795_338_000, nanos: 0 }),
            outside_jobs: true,
            ..EventFilter::default()
        };
        let words = "job 0aaa, kinds secret.access loss, since 2026-11-22T09:00:00Z, outside jobs";
        assert_eq!(filter(&asked), words);
        let far = Timestamp { seconds: i64::MAX, nanos: 0 };
        assert_eq!(utc(&far), "9223372036854775807000000000");
    }
}
