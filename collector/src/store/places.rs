//! Where things of the index stand in the log.

use buildtrail_evidence::records::RecordIndex;
use rusqlite::{OptionalExtension as _, params};

use super::{Asked, JobRow, StoreError};

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
    pub(crate) fn records_of(&self, job: JobRow) -> Result<Option<JobRecords>, StoreError> {
        let sql = "SELECT job_id, hosts.host_id, hosts.record, jobs.host
             FROM jobs JOIN hosts ON hosts.id = jobs.host WHERE jobs.id = ?1";
        let (job_id, host_id, host_record, host) =
            self.connection.prepare_cached(sql)?.query_row([job.0], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
            })?;
        // A job runs in one boot of its host.
        let sql = "SELECT boot, MIN(sequence), MAX(sequence) FROM events WHERE job = ?1
             GROUP BY boot ORDER BY boot LIMIT 1";
        let span = self.connection.prepare_cached(sql)?.query_row([job.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let Some((boot, first, last)) = span.optional()? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(
            "SELECT record FROM batches
             WHERE host = ?1 AND boot = ?2 AND last_sequence >= ?3 AND first_sequence <= ?4 ORDER BY number",
        )?;
        let rows = statement.query_map(params![host, boot, first, last], |row| {
            Ok(RecordIndex(row.get::<_, i64>(0)?.cast_unsigned()))
        })?;
        let batches = rows.collect::<Result<Vec<_>, _>>()?;
        let host_record = RecordIndex(host_record.cast_unsigned());
        Ok((!batches.is_empty()).then_some(JobRecords { job_id, host_id, host_record, batches }))
    }
}
