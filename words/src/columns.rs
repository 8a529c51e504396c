//! Answers as rows of cells, for CSV: the same columns on the command line and over HTTP.

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{
        AggregateResponse, AggregateRow, AggregateSort, AuditEvent, HostSummary, HuntedIndicator, JobSummary,
        Tier,
    },
};
use buildtrail_query::{Field, bytes, values};

/// Fields that have columns of their own, or whose values are parts of others'.
const NOT_COLUMNS: [Field; 5] = [Field::Host, Field::Kind, Field::Job, Field::Step, Field::Text];

/// Columns of an event.
#[must_use]
pub fn event_titles() -> Vec<&'static str> {
    let own = ["time", "host", "boot", "sequence", "kind", "job", "job_name", "step", "step_name", "pid"];
    let fields = fields().map(Field::name);
    own.into_iter().chain(fields).chain(["bytes_out", "bytes_in"]).collect()
}

fn fields() -> impl Iterator<Item = Field> {
    Field::ALL.into_iter().filter(|field| !NOT_COLUMNS.contains(field))
}

/// The cells of an event, in the order of [`event_titles`]. Several values of a field are separated by spaces.
#[must_use]
pub fn event(event: &AuditEvent) -> Vec<String> {
    let job = event.job.as_ref();
    let step = event.step.as_ref();
    let mut cells = vec![
        utc(event.time.as_ref()),
        event.host_id.clone(),
        event.boot_id.clone(),
        event.sequence.to_string(),
        event.kind().to_owned(),
        job.map(|job| job.job_id.clone()).unwrap_or_default(),
        job.map(|job| job.name.clone()).unwrap_or_default(),
        step.map(|step| step.id.clone()).unwrap_or_default(),
        step.map(|step| step.name.clone()).unwrap_or_default(),
        event.process.as_ref().map(|process| process.pid.to_string()).unwrap_or_default(),
    ];
    cells.extend(fields().map(|field| {
        let mut all = String::new();
        values(event, field, &mut |value| {
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&value);
        });
        all
    }));
    let (out, back) = bytes(event);
    cells.extend([out.to_string(), back.to_string()]);
    cells
}

/// Columns of a job.
pub const JOB_TITLES: [&str; 21] = [
    "job",
    "host",
    "platform",
    "server",
    "repo",
    "workflow",
    "run",
    "attempt",
    "name",
    "actor",
    "ref",
    "sha",
    "trigger",
    "runner",
    "started",
    "last",
    "finished",
    "secrets",
    "credentials",
    "bytes_out",
    "bytes_in",
];

/// The cells of a job.
#[must_use]
pub fn job(summary: &JobSummary) -> Vec<String> {
    let job = summary.job.clone().unwrap_or_default();
    let count = |kind: &str| summary.counts.get(kind).copied().unwrap_or_default().to_string();
    vec![
        job.job_id,
        summary.host_id.clone(),
        job.platform,
        job.server,
        job.repository,
        job.workflow,
        job.run_id,
        job.run_attempt,
        job.name,
        job.actor,
        job.r#ref,
        job.sha,
        job.trigger,
        job.runner_name,
        utc(summary.first_event.as_ref()),
        utc(summary.last_event.as_ref()),
        summary.finished.to_string(),
        count("secret.access"),
        count("credential.use"),
        summary.bytes_out.to_string(),
        summary.bytes_in.to_string(),
    ]
}

/// Columns of an aggregate behind those of its fields.
pub const AGGREGATE_TITLES: [&str; 7] = ["time", "events", "jobs", "first", "last", "bytes_out", "bytes_in"];

/// The cells of a row of an aggregate: its values, then [`AGGREGATE_TITLES`].
#[must_use]
pub fn aggregate(row: &AggregateRow) -> Vec<String> {
    let mut cells = row.values.clone();
    cells.extend([
        utc(row.time.as_ref()),
        row.events.to_string(),
        row.jobs.to_string(),
        utc(row.first.as_ref()),
        utc(row.last.as_ref()),
        row.bytes_out.to_string(),
        row.bytes_in.to_string(),
    ]);
    cells
}

/// Columns of a host.
pub const HOST_TITLES: [&str; 17] = [
    "host",
    "name",
    "tier",
    "dark",
    "last_event",
    "last_heartbeat",
    "last_heard",
    "lag_ms",
    "spool_bytes",
    "captured",
    "lost",
    "running_jobs",
    "agent_version",
    "kernel",
    "certificate_expires",
    "hooks_missing",
    "gaps",
];

/// The cells of a host.
#[must_use]
pub fn host(host: &HostSummary) -> Vec<String> {
    vec![
        host.host_id.clone(),
        host.name.clone(),
        tier(host.tier()).to_owned(),
        host.dark.to_string(),
        utc(host.last_event.as_ref()),
        utc(host.last_heartbeat.as_ref()),
        utc(host.last_heard.as_ref()),
        host.lag_ms.to_string(),
        host.spool_bytes.to_string(),
        host.events_captured.to_string(),
        host.events_lost.to_string(),
        host.running_jobs.to_string(),
        host.agent_version.clone(),
        host.kernel_release.clone(),
        utc(host.certificate_expires.as_ref()),
        host.hooks_missing.to_string(),
        host.gaps.join(" "),
    ]
}

/// A tier's letter.
#[must_use]
pub fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::A => "A",
        Tier::B => "B",
        Tier::C => "C",
        Tier::None => "none",
        Tier::Unspecified => "unknown",
    }
}

/// RFC 3339 with all digits, in UTC; empty where there is no time.
#[must_use]
pub fn utc(time: Option<&Timestamp>) -> String {
    let time = time.and_then(|time| jiff::Timestamp::from_nanosecond(unix_nanos(time)).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Columns of an indicator that was hunted.
pub const INDICATOR_TITLES: [&str; 9] =
    ["indicator", "kind", "line", "found", "jobs", "events", "first_seen", "last_seen", "matched"];

/// The cells of an indicator that was hunted.
#[must_use]
pub fn indicator(indicator: &HuntedIndicator) -> Vec<String> {
    let found = match (indicator.events, indicator.not_recorded) {
        (0, true) => "not recorded",
        (0, false) => "no",
        _ => "yes",
    };
    vec![
        indicator.indicator.clone(),
        indicator.kind.clone(),
        indicator.line.to_string(),
        found.to_owned(),
        indicator.jobs.to_string(),
        indicator.events.to_string(),
        utc(indicator.first_seen.as_ref()),
        utc(indicator.last_seen.as_ref()),
        indicator.matched.join(" "),
    ]
}

/// One ranking of secrets and credentials, of two that were counted each by itself: each row's values are `secret` or
/// `credential`, and the name.
#[must_use]
pub fn secrets(
    secrets: AggregateResponse,
    credentials: AggregateResponse,
    sort: AggregateSort,
    limit: usize,
) -> AggregateResponse {
    let of = |what: &str, rows: Vec<AggregateRow>| {
        let what = what.to_owned();
        rows.into_iter().map(move |mut row| {
            row.values.insert(0, what.clone());
            row
        })
    };
    let mut rows: Vec<_> = of("secret", secrets.rows).chain(of("credential", credentials.rows)).collect();
    let nanos = |time: Option<&Timestamp>| time.map_or(i128::MIN, unix_nanos);
    let rank = |row: &AggregateRow| match sort {
        AggregateSort::Unspecified | AggregateSort::Events => i128::from(row.events),
        AggregateSort::Jobs => i128::from(row.jobs),
        AggregateSort::Last => nanos(row.last.as_ref()),
        AggregateSort::First => nanos(row.first.as_ref()),
        AggregateSort::BytesOut => i128::from(row.bytes_out),
        AggregateSort::Time => 0,
    };
    rows.sort_by(|one, other| rank(other).cmp(&rank(one)).then_with(|| one.values.cmp(&other.values)));
    let more = secrets.more || credentials.more || rows.len() > limit;
    rows.truncate(limit);
    let later = nanos(secrets.only_since.as_ref()) > nanos(credentials.only_since.as_ref());
    let only_since = if later { secrets.only_since } else { credentials.only_since };
    AggregateResponse { rows, more, only_since }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_credentials_are_one_ranking() {
        let counted = |rows: &[(&str, u64)]| AggregateResponse {
            rows: rows
                .iter()
                .map(|(name, jobs)| AggregateRow {
                    values: vec![(*name).to_owned()],
                    jobs: *jobs,
                    ..AggregateRow::default()
                })
                .collect(),
            ..AggregateResponse::default()
        };
        let ranked = |limit| {
            let (secrets_, credentials) = (counted(&[("a", 3), ("b", 1)]), counted(&[("c", 2)]));
            let found = secrets(secrets_, credentials, AggregateSort::Jobs, limit);
            let rows: Vec<_> = found.rows.iter().map(|row| row.values.join(" ")).collect();
            (rows.join(", "), found.more)
        };
        assert_eq!(ranked(10), ("secret a, credential c, secret b".into(), false));
        assert_eq!(ranked(2), ("secret a, credential c".into(), true));
    }
}
