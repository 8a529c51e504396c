//! Indexing one log record, within a transaction.

use std::collections::HashMap;

use buildtrail_evidence::{batch::OpenedBatch, digest::Digest, log::HostRecord, records::RecordIndex};
use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, CollectorEntry, audit_event::Body},
};
use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::StoreError;

/// A host's introduction; a repeated one changes nothing.
pub(super) fn host(
    index: &Transaction<'_>,
    record: RecordIndex,
    host: &HostRecord,
) -> Result<(), StoreError> {
    index
        .prepare_cached(
            "INSERT OR IGNORE INTO hosts
             SELECT NULL, ?1, ?2, ?3, 0, ?4, '', 0, damaged, ?5 FROM state",
        )?
        .execute(params![
            host.host_id,
            host.name,
            host.public_key,
            Digest::default().as_bytes(),
            record.0.cast_signed()
        ])?;
    Ok(())
}

/// What the collector did or noticed.
pub(super) fn act(
    index: &Transaction<'_>,
    record: RecordIndex,
    entry: &CollectorEntry,
) -> Result<(), StoreError> {
    index.prepare_cached("INSERT OR IGNORE INTO acts VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        record.0.cast_signed(),
        nanos(entry.time.as_ref()),
        entry.kind(),
        entry.host_id(),
        entry.encode_to_vec()
    ])?;
    Ok(())
}

/// Forgets the events of batches, and the jobs that have none left.
pub(super) fn thinned(
    index: &Transaction<'_>,
    first: RecordIndex,
    end: RecordIndex,
) -> Result<(), StoreError> {
    index.execute(
        "DELETE FROM events WHERE id IN (
             SELECT events.id FROM batches JOIN events ON events.boot = batches.boot
                 AND events.sequence BETWEEN batches.first_sequence AND batches.last_sequence
             WHERE batches.record >= ?1 AND batches.record < ?2
         )",
        params![first.0.cast_signed(), end.0.cast_signed()],
    )?;
    index.execute_batch(
        "DELETE FROM jobs WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.job = jobs.id);
         DELETE FROM job_counts WHERE job NOT IN (SELECT id FROM jobs);
         DELETE FROM steps WHERE job NOT IN (SELECT id FROM jobs);
         DELETE FROM step_counts WHERE step NOT IN (SELECT id FROM steps);",
    )?;
    Ok(())
}

/// A batch of a known host, newer than those before.
pub(super) fn batch(
    index: &Transaction<'_>,
    record: RecordIndex,
    batch: &OpenedBatch,
) -> Result<(), StoreError> {
    let header = &batch.header;
    let Some(host) = advance_host(index, batch)? else {
        tracing::error!(%record, host = header.host_id, number = header.number, "not indexed: it does not follow");
        return Ok(());
    };
    let boot = boot(index, host, &header.boot_id)?;
    index.prepare_cached("INSERT OR IGNORE INTO batches VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
        params![
            host,
            header.number.cast_signed(),
            batch.digest.as_bytes(),
            record.0.cast_signed(),
            boot,
            header.first_sequence.cast_signed(),
            header.last_sequence.cast_signed()
        ],
    )?;
    let mut jobs: HashMap<&str, JobSpan<'_>> = HashMap::new();
    for event in &batch.events {
        if let Some(job) = &event.job {
            jobs.entry(&job.job_id).or_insert_with(|| JobSpan::new(event)).add(event);
        }
    }
    let mut rows = HashMap::new();
    for (job_id, span) in jobs {
        rows.insert(job_id, span.save(index, host, job_id)?);
    }
    let mut insert =
        index.prepare_cached("INSERT OR IGNORE INTO events VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for event in &batch.events {
        let job = event.job.as_ref().and_then(|job| rows.get(&*job.job_id));
        let sequence = event.sequence.cast_signed();
        insert.execute(params![
            boot,
            sequence,
            host,
            nanos(event.time.as_ref()),
            event.kind(),
            job,
            event.encode_to_vec()
        ])?;
    }
    Ok(())
}

/// Moves the host's head; `None`: the host is unknown or the batch is not newer.
fn advance_host(index: &Transaction<'_>, batch: &OpenedBatch) -> Result<Option<i64>, StoreError> {
    let header = &batch.header;
    let host = index
        .prepare_cached(
            "UPDATE hosts SET number = ?2, digest = ?3, boot_id = ?4, last_sequence = ?5, damaged = 0
             WHERE host_id = ?1 AND number < ?2 RETURNING id",
        )?
        .query_row(
            params![
                header.host_id,
                header.number.cast_signed(),
                batch.digest.as_bytes(),
                header.boot_id,
                header.last_sequence.cast_signed()
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(host)
}

fn boot(index: &Transaction<'_>, host: i64, boot_id: &str) -> Result<i64, StoreError> {
    index
        .prepare_cached("INSERT OR IGNORE INTO boots VALUES (NULL, ?1, ?2)")?
        .execute(params![host, boot_id])?;
    let boot = index
        .prepare_cached("SELECT id FROM boots WHERE host = ?1 AND boot_id = ?2")?
        .query_row(params![host, boot_id], |row| row.get(0))?;
    Ok(boot)
}

/// Nanoseconds since 1970; 0 where there is no time.
fn nanos(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| i64::try_from(unix_nanos(time)).unwrap_or(i64::MAX))
}

/// When something began and ended, and how many events of each kind it had.
struct Span {
    first: i64,
    last: i64,
    counts: HashMap<&'static str, i64>,
}

impl Span {
    fn new(event: &AuditEvent) -> Self {
        Self { first: nanos(event.time.as_ref()), last: nanos(event.time.as_ref()), counts: HashMap::new() }
    }

    fn add(&mut self, event: &AuditEvent) {
        self.first = self.first.min(nanos(event.time.as_ref()));
        self.last = self.last.max(nanos(event.time.as_ref()));
        *self.counts.entry(event.kind()).or_default() += 1;
    }

    fn save_counts(&self, index: &Transaction<'_>, upsert: &str, id: i64) -> Result<(), StoreError> {
        let mut upsert = index.prepare_cached(upsert)?;
        for (kind, count) in &self.counts {
            upsert.execute(params![id, kind, count])?;
        }
        Ok(())
    }
}

/// What one batch says about one job.
struct JobSpan<'a> {
    span: Span,
    latest: &'a AuditEvent,
    finished: bool,
    steps: HashMap<(u32, &'a str), StepSpan<'a>>,
}

struct StepSpan<'a> {
    span: Span,
    latest: &'a AuditEvent,
}

impl<'a> JobSpan<'a> {
    fn new(event: &'a AuditEvent) -> Self {
        Self { span: Span::new(event), latest: event, finished: false, steps: HashMap::new() }
    }

    fn add(&mut self, event: &'a AuditEvent) {
        self.span.add(event);
        self.latest = event;
        self.finished |= matches!(event.body, Some(Body::JobFinished(_)));
        if let Some(step) = &event.step {
            let known = self.steps.entry((step.index, &step.id));
            let known = known.or_insert_with(|| StepSpan { span: Span::new(event), latest: event });
            known.span.add(event);
            known.latest = event;
        }
    }

    fn save(&self, index: &Transaction<'_>, host: i64, job_id: &str) -> Result<i64, StoreError> {
        let job = self.latest.job.clone().unwrap_or_default();
        let id = index
            .prepare_cached(
                "INSERT INTO jobs VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (job_id, host) DO UPDATE SET
                     repository = excluded.repository, job = excluded.job,
                     first_time = min(first_time, excluded.first_time),
                     last_time = max(last_time, excluded.last_time),
                     finished = max(finished, excluded.finished)
                 RETURNING id",
            )?
            .query_row(
                params![
                    host,
                    job_id,
                    job.repository,
                    job.encode_to_vec(),
                    self.span.first,
                    self.span.last,
                    self.finished
                ],
                |row| row.get(0),
            )?;
        let upsert = "INSERT INTO job_counts VALUES (?1, ?2, ?3)
                      ON CONFLICT DO UPDATE SET count = count + excluded.count";
        self.span.save_counts(index, upsert, id)?;
        for ((number, step_id), step) in &self.steps {
            step.save(index, id, *number, step_id)?;
        }
        Ok(id)
    }
}

impl StepSpan<'_> {
    fn save(&self, index: &Transaction<'_>, job: i64, number: u32, step_id: &str) -> Result<(), StoreError> {
        let step = self.latest.step.clone().unwrap_or_default().encode_to_vec();
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
        let upsert = "INSERT INTO step_counts VALUES (?1, ?2, ?3)
                      ON CONFLICT DO UPDATE SET count = count + excluded.count";
        self.span.save_counts(index, upsert, id)
    }
}
