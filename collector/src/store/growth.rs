//! What events add to the roll-ups: "who used what", jobs and steps.

use std::collections::HashMap;

use buildtrail_proto::v1::{AuditEvent, Job, Step, audit_event::Body};
use buildtrail_query::{Field, bytes, values};
use prost::Message as _;
use rusqlite::{Transaction, params};

use super::{
    StoreError,
    dictionary::{self, Known},
};

/// Nanoseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000_000_000;

/// The hour of a time.
pub(super) fn hour(time: i64) -> i64 {
    time.div_euclid(HOUR)
}

/// When, how often and how many bytes.
#[derive(Debug, Clone, Copy)]
struct Span {
    count: i64,
    first: i64,
    last: i64,
    out: i64,
    incoming: i64,
}

impl Span {
    fn of(event: &AuditEvent, time: i64) -> Self {
        let (out, incoming) = bytes(event);
        let bounded = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Self { count: 1, first: time, last: time, out: bounded(out), incoming: bounded(incoming) }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.out = self.out.saturating_add(other.out);
        self.incoming = self.incoming.saturating_add(other.incoming);
    }
}

/// Value, hour, identity and kind.
type Use = (i64, i64, i64, i64);

/// What a number of events add.
#[derive(Default)]
pub(super) struct Growth<'a> {
    uses: HashMap<Use, Span>,
    jobs: HashMap<i64, JobGrowth<'a>>,
}

struct JobGrowth<'a> {
    span: Span,
    latest: Option<&'a Job>,
    finished: bool,
    steps: HashMap<(u32, String), StepGrowth>,
}

struct StepGrowth {
    span: Span,
    latest: Step,
    counts: HashMap<&'static str, i64>,
}

/// Where an event belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) time: i64,
    pub(super) identity: i64,
    /// The value of its kind.
    pub(super) kind: i64,
    pub(super) job: Option<i64>,
}

impl<'a> Growth<'a> {
    /// Counts an event. The job of the latest one is what jobs are shown as.
    pub(super) fn add(
        &mut self,
        index: &Transaction<'_>,
        known: &mut Known,
        event: &'a AuditEvent,
        place: Place,
    ) -> Result<(), StoreError> {
        self.add_uses(index, known, event, place)?;
        if let Some(job) = place.job {
            self.add_to_job(job, event, place.time);
            if let Some(job) = self.jobs.get_mut(&job) {
                job.latest = event.job.as_ref();
            }
        }
        Ok(())
    }

    /// As [`Self::add`], of an event that was counted before and is there again only to be counted.
    pub(super) fn add_again(
        &mut self,
        index: &Transaction<'_>,
        known: &mut Known,
        event: &AuditEvent,
        place: Place,
    ) -> Result<(), StoreError> {
        self.add_uses(index, known, event, place)?;
        if let Some(job) = place.job {
            self.add_to_job(job, event, place.time);
        }
        Ok(())
    }

    fn add_uses(
        &mut self,
        index: &Transaction<'_>,
        known: &mut Known,
        event: &AuditEvent,
        place: Place,
    ) -> Result<(), StoreError> {
        let span = Span::of(event, place.time);
        let mut ids = vec![place.kind];
        for field in event_fields() {
            let mut found = Vec::new();
            values(event, field, &mut |value| found.push(value));
            for value in found {
                let id = known.value(index, field, &value)?;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        for id in ids {
            let key = (id, hour(place.time), place.identity, place.kind);
            self.uses.entry(key).and_modify(|known| known.add(&span)).or_insert(span);
        }
        Ok(())
    }

    fn add_to_job(&mut self, job: i64, event: &AuditEvent, time: i64) {
        let span = Span::of(event, time);
        let growth = self.jobs.entry(job).and_modify(|known| known.span.add(&span));
        let growth = growth.or_insert_with(|| JobGrowth {
            span,
            latest: None,
            finished: false,
            steps: HashMap::new(),
        });
        growth.finished |= matches!(event.body, Some(Body::JobFinished(_)));
        let Some(step) = &event.step else { return };
        let known = growth.steps.entry((step.index, step.id.clone()));
        let known = known.and_modify(|known| {
            known.span.add(&span);
            known.latest.clone_from(step);
        });
        let known =
            known.or_insert_with(|| StepGrowth { span, latest: step.clone(), counts: HashMap::new() });
        *known.counts.entry(event.kind()).or_default() += 1;
    }

    /// Adds it to the tables.
    pub(super) fn save(self, index: &Transaction<'_>) -> Result<(), StoreError> {
        let mut upsert = index.prepare_cached(
            "INSERT INTO uses VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO UPDATE SET
                 count = count + excluded.count, first = min(first, excluded.first),
                 last = max(last, excluded.last), bytes_out = bytes_out + excluded.bytes_out,
                 bytes_in = bytes_in + excluded.bytes_in",
        )?;
        let mut uses: Vec<_> = self.uses.into_iter().collect();
        // Neighbours in the table are written one after the other.
        uses.sort_unstable_by_key(|(key, _)| *key);
        for ((value, hour, identity, kind), span) in uses {
            let Span { count, first, last, out, incoming } = span;
            upsert.execute(params![value, hour, identity, kind, count, first, last, out, incoming])?;
        }
        for (id, job) in self.jobs {
            job.save(index, id)?;
        }
        Ok(())
    }
}

/// The indexed fields that events of one identity do not share; kinds are added as such.
fn event_fields() -> impl Iterator<Item = Field> {
    Field::ALL.into_iter().filter(|field| dictionary::is_of_events(*field))
}

impl JobGrowth<'_> {
    fn save(&self, index: &Transaction<'_>, id: i64) -> Result<(), StoreError> {
        let Span { count, first, last, out, incoming } = self.span;
        index
            .prepare_cached(
                "UPDATE jobs SET job = coalesce(?2, job), first_time = min(first_time, ?3),
                     last_time = max(last_time, ?4), finished = max(finished, ?5), events = events + ?6,
                     bytes_out = bytes_out + ?7, bytes_in = bytes_in + ?8
                 WHERE id = ?1",
            )?
            .execute(params![
                id,
                self.latest.map(prost::Message::encode_to_vec),
                first,
                last,
                self.finished,
                count,
                out,
                incoming
            ])?;
        for ((number, step_id), step) in &self.steps {
            step.save(index, id, *number, step_id)?;
        }
        Ok(())
    }
}

impl StepGrowth {
    fn save(&self, index: &Transaction<'_>, job: i64, number: u32, step_id: &str) -> Result<(), StoreError> {
        let step = self.latest.encode_to_vec();
        let id: i64 = index
            .prepare_cached(
                "INSERT INTO steps VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (job, number, step_id) DO UPDATE SET
                     step = excluded.step,
                     first_time = min(first_time, excluded.first_time),
                     last_time = max(last_time, excluded.last_time)
                 RETURNING id",
            )?
            .query_row(params![job, number, step_id, step, self.span.first, self.span.last], |row| {
                row.get(0)
            })?;
        let mut upsert = index.prepare_cached(
            "INSERT INTO step_counts VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET count = count + excluded.count",
        )?;
        for (kind, count) in &self.counts {
            upsert.execute(params![id, kind, count])?;
        }
        Ok(())
    }
}
