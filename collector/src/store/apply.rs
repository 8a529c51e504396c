//! Indexing one log record, within a transaction.

use std::ops::RangeInclusive;

use buildtrail_evidence::{batch::OpenedBatch, digest::Digest, log::HostRecord, records::RecordIndex};
use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, CollectorEntry, Job},
};
use buildtrail_query::{Field, values};
use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{
    StoreError,
    dictionary::Known,
    growth::{Growth, Place},
    wire,
};

/// Of an event's id: its place in the batch.
pub(super) const PLACE_BITS: u32 = 24;
/// Most earlier batches that a batch can be compared with.
const MAX_OVERLAPS: i64 = 100;
/// Identities that the writer remembers.
const REMEMBERED_IDENTITIES: usize = 10_000;

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

/// A batch of a known host, newer than those before.
pub(super) fn batch(
    index: &Transaction<'_>,
    record: RecordIndex,
    batch: &OpenedBatch,
    known: &mut Known,
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
    let taken = taken(index, boot, header.first_sequence, header.last_sequence, record)?;
    let mut growth = Growth::default();
    let mut insert = index.prepare_cached("INSERT OR IGNORE INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (place_in_batch, event) in batch.events.iter().enumerate() {
        if taken.iter().any(|taken| taken.contains(&event.sequence)) {
            continue;
        }
        let time = nanos(event.time.as_ref());
        let (shared, rest) = wire::split(&event.encode_to_vec());
        let (identity, job) = identity(index, known, event, shared, (host, boot))?;
        let kind = known.value(index, Field::Kind, event.kind())?;
        let id = event_id(record, place_in_batch);
        if insert.execute(params![id, time, identity, kind, rest])? == 1 {
            growth.add(index, known, event, Place { time, identity, kind, job })?;
        }
    }
    drop(insert);
    growth.save(index)
}

/// Ids are the order of the log.
pub(super) fn event_id(record: RecordIndex, place_in_batch: usize) -> i64 {
    let place = i64::try_from(place_in_batch).unwrap_or(i64::MAX).min((1 << PLACE_BITS) - 1);
    (record.0.cast_signed() << PLACE_BITS) | place
}

/// Numbers of the boot that other batches have. Only a host that lies about its boots has any.
fn taken(
    index: &Transaction<'_>,
    boot: i64,
    first: u64,
    last: u64,
    record: RecordIndex,
) -> Result<Vec<RangeInclusive<u64>>, StoreError> {
    let mut statement = index.prepare_cached(
        "SELECT first_sequence, last_sequence FROM batches
         WHERE boot = ?1 AND first_sequence <= ?2 AND record <> ?3 ORDER BY first_sequence DESC LIMIT ?4",
    )?;
    let mut rows =
        statement.query(params![boot, last.cast_signed(), record.0.cast_signed(), MAX_OVERLAPS])?;
    let mut taken = Vec::new();
    while let Some(row) = rows.next()? {
        let (other_first, other_last): (i64, i64) = (row.get(0)?, row.get(1)?);
        if other_last.cast_unsigned() < first {
            break;
        }
        taken.push(other_first.cast_unsigned()..=other_last.cast_unsigned());
    }
    Ok(taken)
}

/// The identity of an event and its job's row, which are added where they are new.
fn identity(
    index: &Transaction<'_>,
    known: &mut Known,
    event: &AuditEvent,
    shared: Vec<u8>,
    (host, boot): (i64, i64),
) -> Result<(i64, Option<i64>), StoreError> {
    if let Some(found) = known.identities.get(&shared) {
        return Ok(*found);
    }
    let digest = Digest::of(&shared);
    let found = index
        .prepare_cached("SELECT id, job FROM identities WHERE digest = ?1")?
        .query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let found = if let Some(found) = found {
        found
    } else {
        let job = event.job.as_ref().map(|job| job_row(index, host, job, event)).transpose()?;
        let id: i64 = index
            .prepare_cached("INSERT INTO identities VALUES (NULL, ?1, ?2, ?3, ?4, ?5) RETURNING id")?
            .query_row(params![host, boot, job, shared, digest.as_bytes()], |row| row.get(0))?;
        add_identity_facts(index, known, event, id)?;
        (id, job)
    };
    if known.identities.len() >= REMEMBERED_IDENTITIES {
        known.identities.clear();
    }
    known.identities.insert(shared, found);
    Ok(found)
}

fn add_identity_facts(
    index: &Transaction<'_>,
    known: &mut Known,
    event: &AuditEvent,
    identity: i64,
) -> Result<(), StoreError> {
    for field in Field::ALL.into_iter().filter(|field| field.is_of_identity()) {
        let mut found = Vec::new();
        values(event, field, &mut |value| found.push(value));
        for value in found {
            let value = known.value(index, field, &value)?;
            index
                .prepare_cached("INSERT OR IGNORE INTO identity_facts VALUES (?1, ?2)")?
                .execute([value, identity])?;
        }
    }
    Ok(())
}

/// The row of a job; a new one has no events yet. What two repositories call the same job are two jobs.
fn job_row(index: &Transaction<'_>, host: i64, job: &Job, event: &AuditEvent) -> Result<i64, StoreError> {
    let time = nanos(event.time.as_ref());
    index
        .prepare_cached(
            "INSERT INTO jobs VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?5, 0, 0, 0, 0) ON CONFLICT DO NOTHING",
        )?
        .execute(params![host, job.job_id, job.repository, job.encode_to_vec(), time])?;
    let id = index
        .prepare_cached("SELECT id FROM jobs WHERE job_id = ?1 AND host = ?2 AND repository = ?3")?
        .query_row(params![job.job_id, host, job.repository], |row| row.get(0))?;
    Ok(id)
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
pub(super) fn nanos(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| i64::try_from(unix_nanos(time)).unwrap_or(i64::MAX))
}
