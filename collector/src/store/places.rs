//! Where things of the index stand in the log, and the collector's own entries in it.

use std::collections::BTreeMap;

use buildtrail_evidence::records::RecordIndex;
use buildtrail_proto::v1::{CollectorEntry, RecordedAct, collector_entry::Act};
use buildtrail_query::Scope;
use prost::Message as _;
use rusqlite::{OptionalExtension as _, params, params_from_iter, types::Value};

use super::{
    Asked, Bounds, JobRow, StoreError,
    apply::{PLACE_BITS, event_id},
};

/// The records that a job's evidence is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRecords {
    pub(crate) job_id: String,
    pub(crate) host_id: String,
    /// The host's introduction.
    pub(crate) host_record: RecordIndex,
    /// The host's batches from the first to the last with an event of the job; never none.
    pub(crate) batches: Vec<RecordIndex>,
}

impl JobRecords {
    pub(crate) fn last_record(&self) -> u64 {
        self.batches.iter().map(|record| record.0).max().unwrap_or_default()
    }
}

impl Asked {
    /// `None`: no event of the job is left.
    pub(crate) fn records_of(&self, scope: &Scope, job: JobRow) -> Result<Option<JobRecords>, StoreError> {
        let sql = "SELECT job_id, hosts.host_id, hosts.record, jobs.host, jobs.repository
             FROM jobs JOIN hosts ON hosts.id = jobs.host WHERE jobs.id = ?1";
        let found = self.connection.prepare_cached(sql)?.query_row([job.0], |row| {
            let about: (String, String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((about, row.get::<_, String>(4)?))
        });
        let Some(((job_id, host_id, host_record, host), repository)) = found.optional()? else {
            return Ok(None);
        };
        if !scope.allows_repository(&repository) {
            return Ok(None);
        }
        // A job runs in one boot of its host.
        let sql = "SELECT identities.boot, MIN(events.id), MAX(events.id)
             FROM identities JOIN events ON events.identity = identities.id WHERE identities.job = ?1
             GROUP BY boot ORDER BY boot LIMIT 1";
        let span = self.connection.prepare_cached(sql)?.query_row([job.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let Some((boot, first, last)) = span.optional()? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(
            "SELECT record FROM batches
             WHERE host = ?1 AND boot = ?2 AND record BETWEEN ?3 AND ?4 ORDER BY number",
        )?;
        let rows = statement
            .query_map(params![host, boot, first >> PLACE_BITS, last >> PLACE_BITS], |row| {
                Ok(RecordIndex(row.get::<_, i64>(0)?.cast_unsigned()))
            })?;
        let batches = rows.collect::<Result<Vec<_>, _>>()?;
        let host_record = RecordIndex(host_record.cast_unsigned());
        Ok((!batches.is_empty()).then_some(JobRecords { job_id, host_id, host_record, batches }))
    }
}

/// Batches that have events, and their events per kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bodies {
    pub(crate) batches: u64,
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Which acts; empty fields match everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActSelection {
    pub(crate) kinds: Vec<String>,
    pub(crate) host_id: String,
    pub(crate) since: i64,
    pub(crate) until: i64,
}

impl Asked {
    /// The newest acts of the selection, newest first, and whether there are more.
    pub(crate) fn acts(
        &self,
        scope: &Scope,
        selection: &ActSelection,
        bounds: Bounds,
    ) -> Result<(Vec<RecordedAct>, bool), StoreError> {
        if !scope.is_everything() {
            return Ok((Vec::new(), false));
        }
        let mut conditions = vec!["time >= ?".to_owned(), "time < ?".to_owned()];
        let mut values: Vec<Value> = vec![selection.since.into(), selection.until.into()];
        if !selection.kinds.is_empty() {
            conditions.push(format!("kind IN ({})", vec!["?"; selection.kinds.len()].join(", ")));
            values.extend(selection.kinds.iter().cloned().map(Value::from));
        }
        if !selection.host_id.is_empty() {
            conditions.push("host_id = ?".to_owned());
            values.push(selection.host_id.clone().into());
        }
        let sql = format!(
            "SELECT record, kind, entry FROM acts WHERE {} ORDER BY time DESC, record DESC",
            conditions.join(" AND ")
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&values))?;
        let (mut acts, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let entry: Vec<u8> = row.get(2)?;
            bytes += entry.len();
            if acts.len() == bounds.events || bytes > bounds.bytes {
                return Ok((acts, true));
            }
            let entry = CollectorEntry::decode(&entry[..]).map_err(|_| StoreError::Damaged("an act"))?;
            let record = row.get::<_, i64>(0)?.cast_unsigned();
            acts.push(RecordedAct { record, kind: row.get(1)?, entry: Some(entry) });
        }
        Ok((acts, false))
    }

    /// What the index holds of these records' batches.
    pub(crate) fn bodies(
        &self,
        scope: &Scope,
        first: RecordIndex,
        end: RecordIndex,
    ) -> Result<Bodies, StoreError> {
        let mut bodies = Bodies::default();
        if !scope.is_everything() {
            return Ok(bodies);
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, kind FROM events WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
        let mut rows = statement.query([event_id(first, 0), event_id(end, 0)])?;
        let (mut counts, mut latest) = (BTreeMap::<i64, u64>::new(), None);
        while let Some(row) = rows.next()? {
            *counts.entry(row.get(1)?).or_default() += 1;
            let batch = Some(row.get::<_, i64>(0)? >> PLACE_BITS);
            if batch != latest {
                bodies.batches += 1;
                latest = batch;
            }
        }
        for (kind, count) in counts {
            bodies.counts.insert(self.kind(kind)?, count);
        }
        Ok(bodies)
    }

    /// Whether the log says already that these records' events are removed.
    pub(crate) fn is_stated(
        &self,
        scope: &Scope,
        first: RecordIndex,
        end: RecordIndex,
    ) -> Result<bool, StoreError> {
        if !scope.is_everything() {
            return Ok(false);
        }
        let mut statement =
            self.connection.prepare_cached("SELECT entry FROM acts WHERE kind = 'bodies.removed'")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entry: Vec<u8> = row.get(0)?;
            let entry = CollectorEntry::decode(&entry[..]).map_err(|_| StoreError::Damaged("an act"))?;
            if let Some(Act::BodiesRemoved(removed)) = entry.act
                && (removed.first_record, removed.end_record) == (first.0, end.0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The public key of a host, if it is known.
    pub(crate) fn host_key(&self, _: &Scope, host_id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT public_key FROM hosts WHERE host_id = ?1")?;
        Ok(statement.query_row([host_id], |row| row.get(0)).optional()?)
    }

    /// The record of the batch that holds this event, if it is indexed and the event may be seen.
    pub(crate) fn record_of_event(
        &self,
        scope: &Scope,
        host_id: &str,
        boot_id: &str,
        sequence: u64,
    ) -> Result<Option<RecordIndex>, StoreError> {
        let found: Option<(i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT record, last_sequence FROM batches WHERE boot = (
                     SELECT boots.id FROM boots JOIN hosts ON hosts.id = boots.host
                     WHERE hosts.host_id = ?1 AND boots.boot_id = ?2
                 ) AND first_sequence <= ?3 ORDER BY first_sequence DESC LIMIT 1",
            )?
            .query_row(params![host_id, boot_id, sequence.cast_signed()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let holds = |(_, last): &(i64, i64)| last.cast_unsigned() >= sequence;
        let Some(record) = found.filter(holds).map(|(record, _)| RecordIndex(record.cast_unsigned())) else {
            return Ok(None);
        };
        let seen = scope.is_everything() || self.holds_visible(scope, record, sequence)?;
        Ok(seen.then_some(record))
    }

    /// Whether an event of a batch may be seen.
    fn holds_visible(&self, scope: &Scope, record: RecordIndex, sequence: u64) -> Result<bool, StoreError> {
        let visible = self.in_scope(scope);
        let mut statement =
            self.connection.prepare_cached("SELECT identity, body FROM events WHERE id >= ?1 AND id < ?2")?;
        let mut rows = statement.query([event_id(record, 0), event_id(record.next(), 0)])?;
        while let Some(row) = rows.next()? {
            if let Some(identity) = visible.get(row.get(0)?)? {
                let body: Vec<u8> = row.get(1)?;
                if identity.complete(&body)?.sequence == sequence {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
