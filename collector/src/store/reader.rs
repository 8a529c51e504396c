//! Reading the index: connections of their own, so that questions and ingest do not wait for each other.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use buildtrail_evidence::{digest::Digest, id::HostId, records::RecordIndex};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{AuditEvent, CollectorEntry, Job, JobSummary, RecordedAct, Step, StepSummary, collector_entry::Act},
};
use prost::Message as _;
use rusqlite::{
    Connection, InterruptHandle, OpenFlags, OptionalExtension as _, Row, params, params_from_iter,
    types::Value,
};
use tokio::sync::Semaphore;

use super::{BUSY, StoreError};

/// Most questions that are answered at a time.
const CONNECTIONS: usize = 4;

/// A row of the jobs table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobRow(pub(super) i64);

/// Which events: conditions that must all hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Selection {
    fn add(&mut self, condition: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(condition.into());
        self.values.extend(values);
    }

    pub(crate) fn job(&mut self, job: JobRow) {
        self.add("job = ?", [job.0.into()]);
    }

    pub(crate) fn outside_jobs(&mut self) {
        self.add("job IS NULL", []);
    }

    pub(crate) fn kinds(&mut self, kinds: &[String]) {
        let marks = vec!["?"; kinds.len()].join(", ");
        self.add(format!("kind IN ({marks})"), kinds.iter().cloned().map(Value::from));
    }

    pub(crate) fn not_kind(&mut self, kind: &str) {
        self.add("kind <> ?", [kind.to_owned().into()]);
    }

    pub(crate) fn host(&mut self, host_id: &str) {
        self.add("host = (SELECT id FROM hosts WHERE host_id = ?)", [host_id.to_owned().into()]);
    }

    pub(crate) fn repository(&mut self, repository: &str) {
        self.add("job IN (SELECT id FROM jobs WHERE repository = ?)", [repository.to_owned().into()]);
    }

    pub(crate) fn since(&mut self, nanos: i64) {
        self.add("time >= ?", [nanos.into()]);
    }

    pub(crate) fn until(&mut self, nanos: i64) {
        self.add("time < ?", [nanos.into()]);
    }

    fn sql(&self, order: Order) -> String {
        let all = if self.conditions.is_empty() { "1".into() } else { self.conditions.join(" AND ") };
        let direction = if order == Order::NewestFirst { "DESC" } else { "ASC" };
        format!("SELECT event FROM events WHERE {all} ORDER BY time {direction}, id {direction}")
    }
}

/// In which order events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

/// How much is returned at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    /// Of encoded events, together.
    pub(crate) bytes: usize,
}

/// Opens read-only connections as needed and keeps them.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared { path, idle: Mutex::default(), places: Semaphore::new(CONNECTIONS) }),
        }
    }

    /// Answers a question on a thread of its own, within `limit`.
    ///
    /// # Errors
    /// What the question returns; or `SQLite` refuses, or time is up.
    pub(crate) async fn ask<T, E>(
        &self,
        limit: Duration,
        question: impl FnOnce(&Asked) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = async {
            let _place = self.shared.places.acquire().await.map_err(|_| StoreError::TimedOut)?;
            let asked = Asked { connection: self.take()? };
            let mut interrupt = InterruptOnDrop(Some(asked.connection.get_interrupt_handle()));
            let work = tokio::task::spawn_blocking(move || {
                let answer = question(&asked);
                (asked, answer)
            });
            let (asked, answer) = work.await.map_err(|_| StoreError::Damaged("a question failed"))?;
            interrupt.0 = None;
            self.give_back(asked.connection);
            answer
        };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(StoreError::TimedOut.into()))
    }

    /// The digest of a host's batch, if it is indexed. Blocks.
    pub(crate) fn batch_digest(&self, host: &HostId, number: u64) -> Result<Option<Digest>, StoreError> {
        let connection = self.take()?;
        let found: Option<Vec<u8>> = connection
            .prepare_cached(
                "SELECT batches.digest FROM batches JOIN hosts ON hosts.id = batches.host
                 WHERE hosts.host_id = ?1 AND batches.number = ?2",
            )?
            .query_row(params![host.as_str(), number.cast_signed()], |row| row.get(0))
            .optional()?;
        self.give_back(connection);
        found
            .map(|bytes| Digest::try_from(&bytes[..]).map_err(|_| StoreError::Damaged("a digest")))
            .transpose()
    }

    fn give_back(&self, connection: Connection) {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn take(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.shared.path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }
}

/// Stops a question whose asker is gone or out of time. Its connection is not used again.
struct InterruptOnDrop(Option<InterruptHandle>);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

/// A connection on which one question is answered.
pub(crate) struct Asked {
    pub(super) connection: Connection,
}

/// A job id, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    One(JobRow),
    None,
    /// At least these.
    Several(Vec<String>),
}

impl Asked {
    #[cfg(test)]
    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }

    /// The job with this id, else the only one whose id begins with it.
    pub(crate) fn resolve(&self, prefix: &str) -> Result<Resolved, StoreError> {
        let mut found = self.jobs_named("job_id = ?1", prefix)?;
        if found.is_empty() {
            found = self.jobs_named("job_id > ?1 AND substr(job_id, 1, length(?1)) = ?1", prefix)?;
        }
        Ok(match &found[..] {
            [] => Resolved::None,
            [(row, _)] => Resolved::One(*row),
            several => Resolved::Several(several.iter().map(|(_, id)| id.clone()).collect()),
        })
    }

    fn jobs_named(&self, condition: &str, id: &str) -> Result<Vec<(JobRow, String)>, StoreError> {
        let sql = format!("SELECT id, job_id FROM jobs WHERE {condition} ORDER BY job_id LIMIT 4");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map([id], |row| Ok((JobRow(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest jobs that began within the time span.
    pub(crate) fn jobs(
        &self,
        repository: &str,
        since: i64,
        until: i64,
        limit: usize,
    ) -> Result<Vec<JobSummary>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "{JOB_COLUMNS} WHERE (?1 = '' OR repository = ?1) AND first_time >= ?2 AND first_time < ?3
             ORDER BY first_time DESC, jobs.id DESC LIMIT ?4"
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![repository, since, until, limit], job_columns)?;
        rows.map(|row| self.summary(row?)).collect()
    }

    pub(crate) fn job(&self, job: JobRow) -> Result<JobSummary, StoreError> {
        let sql = format!("{JOB_COLUMNS} WHERE jobs.id = ?1");
        let columns = self.connection.prepare_cached(&sql)?.query_row([job.0], job_columns)?;
        self.summary(columns)
    }

    fn summary(&self, columns: JobColumns) -> Result<JobSummary, StoreError> {
        Ok(JobSummary {
            job: Some(Job::decode(&columns.job[..]).map_err(|_| StoreError::Damaged("a job"))?),
            host_id: columns.host_id,
            first_event: Some(timestamp_from_unix_nanos(columns.first.into())),
            last_event: Some(timestamp_from_unix_nanos(columns.last.into())),
            finished: columns.finished,
            counts: self.counts("SELECT kind, count FROM job_counts WHERE job = ?1", columns.id)?,
        })
    }

    pub(crate) fn steps(&self, job: JobRow, limit: usize) -> Result<Vec<StepSummary>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, step, first_time, last_time FROM steps WHERE job = ?1 ORDER BY number, step_id LIMIT ?2",
        )?;
        let mut rows = statement.query(params![job.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut steps = Vec::new();
        while let Some(row) = rows.next()? {
            let step: Vec<u8> = row.get(1)?;
            steps.push(StepSummary {
                step: Some(Step::decode(&step[..]).map_err(|_| StoreError::Damaged("a step"))?),
                first_event: Some(timestamp_from_unix_nanos(row.get::<_, i64>(2)?.into())),
                last_event: Some(timestamp_from_unix_nanos(row.get::<_, i64>(3)?.into())),
                counts: self.counts("SELECT kind, count FROM step_counts WHERE step = ?1", row.get(0)?)?,
            });
        }
        Ok(steps)
    }

    fn counts(&self, sql: &str, id: i64) -> Result<HashMap<String, u64>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows =
            statement.query_map([id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The first events of the selection in the given order, and whether there are more.
    pub(crate) fn events(
        &self,
        selection: &Selection,
        order: Order,
        bounds: Bounds,
    ) -> Result<(Vec<AuditEvent>, bool), StoreError> {
        let mut statement = self.connection.prepare_cached(&selection.sql(order))?;
        let mut rows = statement.query(params_from_iter(&selection.values))?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let event: Vec<u8> = row.get(0)?;
            bytes += event.len();
            if events.len() == bounds.events || bytes > bounds.bytes {
                return Ok((events, true));
            }
            events.push(AuditEvent::decode(&event[..]).map_err(|_| StoreError::Damaged("an event"))?);
        }
        Ok((events, false))
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
        selection: &ActSelection,
        bounds: Bounds,
    ) -> Result<(Vec<RecordedAct>, bool), StoreError> {
        let mut all = Selection::default();
        all.since(selection.since);
        all.until(selection.until);
        if !selection.kinds.is_empty() {
            all.kinds(&selection.kinds);
        }
        if !selection.host_id.is_empty() {
            all.add("host_id = ?", [selection.host_id.clone().into()]);
        }
        let sql = format!(
            "SELECT record, kind, entry FROM acts WHERE {} ORDER BY time DESC, record DESC",
            all.conditions.join(" AND ")
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(&all.values))?;
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
    pub(crate) fn bodies(&self, first: RecordIndex, end: RecordIndex) -> Result<Bodies, StoreError> {
        let mut bodies = Bodies::default();
        let mut statement = self.connection.prepare_cached(
            "SELECT kind, count(*) FROM batches JOIN events ON events.boot = batches.boot
                 AND events.sequence BETWEEN batches.first_sequence AND batches.last_sequence
             WHERE record >= ?1 AND record < ?2 GROUP BY kind",
        )?;
        let range = params![first.0.cast_signed(), end.0.cast_signed()];
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            bodies.counts.insert(row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
        }
        let batches: i64 = self
            .connection
            .prepare_cached(
                "SELECT count(*) FROM batches WHERE record >= ?1 AND record < ?2 AND EXISTS (
                     SELECT 1 FROM events WHERE events.boot = batches.boot
                         AND sequence BETWEEN first_sequence AND last_sequence
                 )",
            )?
            .query_row(range, |row| row.get(0))?;
        bodies.batches = batches.cast_unsigned();
        Ok(bodies)
    }

    /// Whether the log says already that these records' events are removed.
    pub(crate) fn is_stated(&self, first: RecordIndex, end: RecordIndex) -> Result<bool, StoreError> {
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

    /// Jobs of a host's latest boot that have not finished.
    pub(crate) fn unfinished_jobs(&self, host_id: &str) -> Result<Vec<Job>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT job FROM jobs WHERE finished = 0 AND host = (SELECT id FROM hosts WHERE host_id = ?1)
                 AND EXISTS (
                     SELECT 1 FROM events JOIN boots ON boots.id = events.boot
                     JOIN hosts ON hosts.id = boots.host AND hosts.boot_id = boots.boot_id
                     WHERE events.job = jobs.id AND hosts.host_id = ?1
                 )
             ORDER BY first_time",
        )?;
        let mut rows = statement.query([host_id])?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            let job: Vec<u8> = row.get(0)?;
            jobs.push(Job::decode(&job[..]).map_err(|_| StoreError::Damaged("a job"))?);
        }
        Ok(jobs)
    }

    /// The public key of a host, if it is known.
    pub(crate) fn host_key(&self, host_id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT public_key FROM hosts WHERE host_id = ?1")?;
        Ok(statement.query_row([host_id], |row| row.get(0)).optional()?)
    }

    /// The record of the batch that holds this event, if it is indexed.
    pub(crate) fn record_of_event(
        &self,
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
        Ok(found.filter(holds).map(|(record, _)| RecordIndex(record.cast_unsigned())))
    }
}

const JOB_COLUMNS: &str = "SELECT jobs.id, job, host_id, first_time, last_time, finished
     FROM jobs JOIN hosts ON hosts.id = jobs.host";

struct JobColumns {
    id: i64,
    job: Vec<u8>,
    host_id: String,
    first: i64,
    last: i64,
    finished: bool,
}

fn job_columns(row: &Row<'_>) -> rusqlite::Result<JobColumns> {
    Ok(JobColumns {
        id: row.get(0)?,
        job: row.get(1)?,
        host_id: row.get(2)?,
        first: row.get(3)?,
        last: row.get(4)?,
        finished: row.get(5)?,
    })
}
