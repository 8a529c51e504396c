//! Forgetting events whose bodies are removed from the log, and everything that the index knew by them.

use std::collections::BTreeSet;

use buildtrail_evidence::records::RecordIndex;
use buildtrail_proto::v1::AuditEvent;
use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction};

use super::{
    StoreError,
    apply::event_id,
    dictionary::Known,
    growth::{Growth, Place},
};

/// Events of one identity that are counted anew at a time.
const AT_A_TIME: usize = 10_000;

/// Forgets the events of these records' batches. Roll-ups, jobs and steps are counted anew from what is left; what nothing
/// is left of goes, and so do values that only it had.
pub(super) fn thinned(
    index: &Transaction<'_>,
    known: &mut Known,
    first: RecordIndex,
    end: RecordIndex,
) -> Result<(), StoreError> {
    let range = [event_id(first, 0), event_id(end, 0)];
    let identities = ids(index, "SELECT DISTINCT identity FROM events WHERE id >= ?1 AND id < ?2", range)?;
    if identities.is_empty() {
        return Ok(());
    }
    index.execute("DELETE FROM events WHERE id >= ?1 AND id < ?2", range)?;
    let (mut values, mut jobs) = (BTreeSet::new(), BTreeSet::new());
    for identity in &identities {
        values.extend(ids(index, "SELECT DISTINCT value FROM uses WHERE identity = ?1", [*identity])?);
        let job: Option<i64> = index
            .prepare_cached("SELECT job FROM identities WHERE id = ?1")?
            .query_row([identity], |row| row.get(0))
            .optional()?
            .flatten();
        jobs.extend(job);
    }
    // A job's numbers come from all of its identities.
    let mut affected: BTreeSet<i64> = identities.iter().copied().collect();
    for job in &jobs {
        affected.extend(ids(index, "SELECT id FROM identities WHERE job = ?1", [*job])?);
        forget_steps(index, *job)?;
        index
            .prepare_cached(
                "UPDATE jobs SET first_time = ?2, last_time = ?3, finished = 0, events = 0, bytes_out = 0,
                     bytes_in = 0 WHERE id = ?1",
            )?
            .execute([*job, i64::MAX, i64::MIN])?;
    }
    known.forget();
    for identity in affected {
        index.prepare_cached("DELETE FROM uses WHERE identity = ?1")?.execute([identity])?;
        if !count_anew(index, known, identity)? {
            values.extend(ids(index, "SELECT value FROM identity_facts WHERE identity = ?1", [identity])?);
            index.prepare_cached("DELETE FROM identity_facts WHERE identity = ?1")?.execute([identity])?;
            index.prepare_cached("DELETE FROM identities WHERE id = ?1")?.execute([identity])?;
        }
    }
    for job in jobs {
        index.prepare_cached("DELETE FROM jobs WHERE id = ?1 AND events = 0")?.execute([job])?;
    }
    for value in values {
        index
            .prepare_cached(
                "DELETE FROM dictionary WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM uses WHERE value = ?1)
                     AND NOT EXISTS (SELECT 1 FROM identity_facts WHERE value = ?1)",
            )?
            .execute([value])?;
    }
    known.forget();
    Ok(())
}

/// Counts the events that an identity still has; says whether it has any.
fn count_anew(index: &Transaction<'_>, known: &mut Known, identity: i64) -> Result<bool, StoreError> {
    let found = index
        .prepare_cached("SELECT job, bytes FROM identities WHERE id = ?1")?
        .query_row([identity], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((job, shared)) = found else { return Ok(false) };
    let mut statement = index
        .prepare_cached("SELECT time, kind, body FROM events WHERE identity = ?1 ORDER BY kind, time")?;
    let mut rows = statement.query([identity])?;
    let (mut growth, mut counted, mut some) = (Growth::default(), 0, false);
    while let Some(row) = rows.next()? {
        some = true;
        let body = row.get_ref(2)?.as_blob().map_err(|_| StoreError::Damaged("an event"))?;
        let bytes = [&shared[..], body].concat();
        let event = AuditEvent::decode(&bytes[..]).map_err(|_| StoreError::Damaged("an event"))?;
        let place = Place { time: row.get(0)?, identity, kind: row.get(1)?, job };
        growth.add_again(index, known, &event, place)?;
        counted += 1;
        if counted % AT_A_TIME == 0 {
            std::mem::take(&mut growth).save(index)?;
        }
    }
    growth.save(index)?;
    Ok(some)
}

fn forget_steps(index: &Transaction<'_>, job: i64) -> Result<(), StoreError> {
    index
        .prepare_cached("DELETE FROM step_counts WHERE step IN (SELECT id FROM steps WHERE job = ?1)")?
        .execute([job])?;
    index.prepare_cached("DELETE FROM steps WHERE job = ?1")?.execute([job])?;
    Ok(())
}

fn ids<const N: usize>(
    index: &Transaction<'_>,
    sql: &str,
    parameters: [i64; N],
) -> Result<Vec<i64>, StoreError> {
    let mut statement = index.prepare_cached(sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(parameters), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
