//! Jobs: the list that a search asks for, and one of them with its steps and its timeline.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
};

use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{AuditEvent, Job, JobSummary, Step, StepSummary},
};
use buildtrail_query::{Compiled, Condition, Field, Scope};
use prost::Message as _;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    Asked, Bounds, Order, StoreError,
    cells::{Cell, Plan},
    dictionary,
    growth::hour,
    top::Top,
};

/// More values than these do not narrow jobs down; each job is then asked itself.
const MAX_VALUES: usize = 2_000;
/// Candidates that are sorted here rather than found among all jobs.
const FEW: usize = 2_000;
/// Jobs that are asked themselves for one answer, at most.
const MAX_ASKED: usize = 20_000;

/// A row of the jobs table. Only jobs that may be seen have one in a reader's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobRow(pub(super) i64);

/// A job id, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    One(JobRow),
    None,
    /// At least these.
    Several(Vec<String>),
}

/// By what jobs are sorted, and whether the largest come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobOrder {
    pub(crate) by: JobKey,
    pub(crate) descending: bool,
}

/// What jobs are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKey {
    Started,
    Duration,
    Events,
    BytesOut,
}

impl JobKey {
    fn sql(self) -> &'static str {
        match self {
            Self::Started => "jobs.first_time",
            Self::Duration => "(jobs.last_time - jobs.first_time)",
            Self::Events => "jobs.events",
            Self::BytesOut => "jobs.bytes_out",
        }
    }
}

/// A page of jobs.
#[derive(Debug, Default)]
pub(crate) struct JobPage {
    pub(crate) jobs: Vec<JobSummary>,
    /// Key and row of the last job that was asked; `None`: this is the last page.
    pub(crate) next: Option<(i64, i64)>,
}

impl Asked {
    /// The job with this id, else the only one whose id begins with it, among those that may be seen.
    pub(crate) fn resolve(&self, scope: &Scope, prefix: &str) -> Result<Resolved, StoreError> {
        let mut found = self.jobs_named(scope, "job_id = ?1", prefix)?;
        if found.is_empty() {
            found = self.jobs_named(scope, "job_id > ?1 AND substr(job_id, 1, length(?1)) = ?1", prefix)?;
        }
        Ok(match &found[..] {
            [] => Resolved::None,
            [(row, _)] => Resolved::One(*row),
            several => Resolved::Several(several.iter().map(|(_, id)| id.clone()).collect()),
        })
    }

    fn jobs_named(
        &self,
        scope: &Scope,
        condition: &str,
        id: &str,
    ) -> Result<Vec<(JobRow, String)>, StoreError> {
        let sql = format!("SELECT id, job_id, repository FROM jobs WHERE {condition} ORDER BY job_id");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([id])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let repository: String = row.get(2)?;
            if scope.allows_repository(&repository) {
                found.push((JobRow(row.get(0)?), row.get(1)?));
            }
            if found.len() == 4 {
                break;
            }
        }
        Ok(found)
    }

    /// Jobs that the search asks for, behind `after`: each condition must hold of some event of the job within the
    /// search's time, one with "not" of all of them.
    pub(crate) fn jobs(
        &self,
        scope: &Scope,
        search: &Compiled,
        order: JobOrder,
        after: Option<(i64, i64)>,
        limit: usize,
    ) -> Result<JobPage, StoreError> {
        let wanted = Wanted::new(self, scope, search)?;
        let (mut page, mut asked, mut last) = (JobPage::default(), 0, None);
        self.walk(&wanted, order, after, &mut |key, id| {
            if page.jobs.len() == limit || asked == MAX_ASKED {
                page.next = last;
                return Ok(ControlFlow::Break(()));
            }
            asked += 1;
            if self.is_wanted(&wanted, id)? {
                page.jobs.push(self.job(scope, JobRow(id))?);
            }
            last = Some((key, id));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }

    /// Hands candidates that may be seen, with their keys, to `visit`, in order, until it breaks off.
    fn walk(
        &self,
        wanted: &Wanted<'_>,
        order: JobOrder,
        after: Option<(i64, i64)>,
        visit: &mut dyn FnMut(i64, i64) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let key = order.by.sql();
        let (direction, than) = if order.descending { ("DESC", "<") } else { ("ASC", ">") };
        let open = if order.descending { i64::MAX } else { i64::MIN };
        let after = after.unwrap_or((open, open));
        let times = "first_time < ?1 AND last_time >= ?2";
        let (since, until) = (wanted.search.since(), wanted.search.until());
        if let Some(few) = wanted.candidates.as_ref().filter(|candidates| candidates.len() <= FEW) {
            let sql = format!("SELECT {key}, id, repository FROM jobs WHERE id = ?3 AND {times}");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut found = BTreeSet::new();
            for id in few {
                let row = statement.query_row(params![until, since, id], |row| {
                    Ok(((row.get(0)?, row.get(1)?), row.get::<_, String>(2)?))
                });
                found.extend(
                    row.optional()?
                        .filter(|(at, repository): &((i64, i64), String)| {
                            wanted.scope.allows_repository(repository)
                                && if order.descending { *at < after } else { *at > after }
                        })
                        .map(|(at, _)| at),
                );
            }
            let found: Vec<(i64, i64)> = if order.descending {
                found.into_iter().rev().collect()
            } else {
                found.into_iter().collect()
            };
            for (key, id) in found {
                if visit(key, id)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let sql = format!(
            "SELECT {key}, id, repository FROM jobs WHERE {times} AND ({key}, id) {than} (?3, ?4)
             ORDER BY {key} {direction}, id {direction}"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![until, since, after.0, after.1])?;
        while let Some(row) = rows.next()? {
            let id = row.get(1)?;
            let repository = row.get_ref(2)?.as_str().unwrap_or_default();
            if wanted.is_candidate(id)
                && wanted.scope.allows_repository(repository)
                && visit(row.get(0)?, id)?.is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, wanted: &Wanted<'_>, job: i64) -> Result<bool, StoreError> {
        let (since, until) = (wanted.search.since(), wanted.search.until());
        let is_within = |cell: &Cell| cell.first >= since && cell.last < until;
        let mut cells = self.cells_of_job(wanted.scope, job)?;
        let is_whole = cells.iter().all(is_within);
        if !is_whole {
            let mut within = Vec::with_capacity(cells.len());
            for cell in cells {
                if is_within(&cell) || self.any_event(wanted, &cell, &mut |_| true)? {
                    within.push(cell);
                }
            }
            cells = within;
        }
        if cells.is_empty() {
            return Ok(false);
        }
        for (condition, jobs) in &wanted.conditions {
            let holds = match jobs {
                // All of its events count, so what the roll-ups say of them is all there is to say.
                Some(jobs) if is_whole => jobs.contains(&job) != condition.is_negated(),
                _ => self.job_meets(wanted, condition, &cells)?,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a condition holds of some event in these cells, or, if it is negated, of all.
    fn job_meets(
        &self,
        wanted: &Wanted<'_>,
        condition: &Condition,
        cells: &[Cell],
    ) -> Result<bool, StoreError> {
        for cell in cells {
            // An event that decides: one that meets the condition, or one that a negated one forbids.
            let decides = if condition.field() == Field::Kind {
                condition.accepts(&self.kind(cell.kind)?)
            } else if condition.field().is_of_identity() {
                let identity = wanted.plan.visible.get(cell.identity)?;
                identity.is_some_and(|it| condition.matches(&it.event) != condition.is_negated())
            } else {
                self.any_event(wanted, cell, &mut |event| condition.matches(event) != condition.is_negated())?
            };
            if decides {
                return Ok(!condition.is_negated());
            }
        }
        Ok(condition.is_negated())
    }

    fn any_event(
        &self,
        wanted: &Wanted<'_>,
        cell: &Cell,
        accept: &mut dyn FnMut(&AuditEvent) -> bool,
    ) -> Result<bool, StoreError> {
        let (mut found, times) = (false, (wanted.search.since(), wanted.search.until()));
        self.events_of(&wanted.plan, cell, times, Order::OldestFirst, &mut |_, event, _| {
            found = accept(&event);
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    }

    pub(crate) fn job(&self, scope: &Scope, job: JobRow) -> Result<JobSummary, StoreError> {
        let sql = format!("{JOB_COLUMNS} FROM jobs JOIN hosts ON hosts.id = jobs.host WHERE jobs.id = ?1");
        let columns = self.connection.prepare_cached(&sql)?.query_row([job.0], job_columns)?;
        self.summary(scope, columns)
    }

    fn summary(&self, scope: &Scope, columns: JobColumns) -> Result<JobSummary, StoreError> {
        let mut counts = HashMap::new();
        for cell in self.cells_of_job(scope, columns.id)? {
            *counts.entry(self.kind(cell.kind)?).or_default() += cell.count;
        }
        Ok(JobSummary {
            job: Some(Job::decode(&columns.job[..]).map_err(|_| StoreError::Damaged("a job"))?),
            host_id: columns.host_id,
            first_event: Some(timestamp_from_unix_nanos(columns.first.into())),
            last_event: Some(timestamp_from_unix_nanos(columns.last.into())),
            finished: columns.finished,
            counts,
            bytes_out: columns.bytes_out.cast_unsigned(),
            bytes_in: columns.bytes_in.cast_unsigned(),
        })
    }

    pub(super) fn kind(&self, value: i64) -> Result<String, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT text FROM dictionary WHERE id = ?1")?;
        Ok(statement.query_row([value], |row| row.get(0))?)
    }

    pub(crate) fn steps(&self, _: &Scope, job: JobRow, limit: usize) -> Result<Vec<StepSummary>, StoreError> {
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
                counts: self.step_counts(row.get(0)?)?,
            });
        }
        Ok(steps)
    }

    fn step_counts(&self, step: i64) -> Result<HashMap<String, u64>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT kind, count FROM step_counts WHERE step = ?1")?;
        let rows =
            statement.query_map([step], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The job's events but those of a kind, oldest first, and whether there are more.
    pub(crate) fn timeline(
        &self,
        scope: &Scope,
        job: JobRow,
        without: &str,
        bounds: Bounds,
    ) -> Result<(Vec<AuditEvent>, bool), StoreError> {
        let plan = self.plan_of_everything(scope)?;
        let mut cells = self.cells_of_job(scope, job.0)?;
        cells.sort_unstable_by_key(|cell| cell.first);
        let mut top = Top::new(Order::OldestFirst, bounds);
        for cell in cells {
            if self.kind(cell.kind)? == without {
                continue;
            }
            self.events_of(
                &plan,
                &cell,
                (i64::MIN, i64::MAX),
                Order::OldestFirst,
                &mut |position, event, size| {
                    if top.is_beyond(position) {
                        return ControlFlow::Break(());
                    }
                    top.add(position, event, size);
                    ControlFlow::Continue(())
                },
            )?;
        }
        let more = top.is_cut();
        Ok((top.finish().0, more))
    }

    /// Jobs of a host's latest boot that have not finished.
    pub(crate) fn unfinished_jobs(&self, scope: &Scope, host_id: &str) -> Result<Vec<Job>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT job, repository FROM jobs
             WHERE finished = 0 AND host = (SELECT id FROM hosts WHERE host_id = ?1) AND EXISTS (
                 SELECT 1 FROM identities JOIN boots ON boots.id = identities.boot
                 JOIN hosts ON hosts.id = boots.host AND hosts.boot_id = boots.boot_id
                 WHERE identities.job = jobs.id
             ) ORDER BY first_time",
        )?;
        let mut rows = statement.query([host_id])?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            let (job, repository): (Vec<u8>, String) = (row.get(0)?, row.get(1)?);
            if scope.allows_repository(&repository) {
                jobs.push(Job::decode(&job[..]).map_err(|_| StoreError::Damaged("a job"))?);
            }
        }
        Ok(jobs)
    }
}

/// What is asked of jobs.
struct Wanted<'a> {
    scope: &'a Scope,
    search: &'a Compiled,
    /// Without conditions: they need not hold of the same event.
    plan: Plan<'a>,
    /// Each condition with the jobs that have, in the hours of the search, a value that it accepts, where that is known.
    conditions: Vec<(&'a Condition, Option<HashSet<i64>>)>,
    /// The only jobs that can meet every condition, where that is known.
    candidates: Option<HashSet<i64>>,
}

impl<'a> Wanted<'a> {
    fn new(asked: &'a Asked, scope: &'a Scope, search: &'a Compiled) -> Result<Self, StoreError> {
        let (mut conditions, mut candidates) = (Vec::new(), None::<HashSet<i64>>);
        for condition in search.conditions() {
            let field = condition.field();
            let is_decided = field.is_indexed() && field != Field::Kind && !condition.accepts_absence();
            let values = if is_decided {
                dictionary::of_condition(&asked.connection, condition, MAX_VALUES)?
            } else {
                None
            };
            let jobs = values.map(|values| asked.jobs_with(condition, &values, search)).transpose()?;
            if let Some(jobs) = jobs.as_ref().filter(|_| !condition.is_negated()) {
                candidates = Some(match candidates {
                    Some(known) => known.intersection(jobs).copied().collect(),
                    None => jobs.clone(),
                });
            }
            conditions.push((condition, jobs));
        }
        Ok(Self { scope, search, plan: asked.plan_of_everything(scope)?, conditions, candidates })
    }

    fn is_candidate(&self, job: i64) -> bool {
        self.candidates.as_ref().is_none_or(|candidates| candidates.contains(&job))
    }
}

impl Asked {
    /// Jobs of which an event or the identity has one of these values.
    fn jobs_with(
        &self,
        condition: &Condition,
        values: &[i64],
        search: &Compiled,
    ) -> Result<HashSet<i64>, StoreError> {
        let sql = if condition.field().is_of_identity() {
            "SELECT DISTINCT identity FROM identity_facts WHERE value = ?1 AND ?2 <= ?3"
        } else {
            "SELECT DISTINCT identity FROM uses WHERE value = ?1 AND hour BETWEEN ?2 AND ?3"
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let (first, last) = (hour(search.since()), hour(search.until()));
        let mut identities = BTreeSet::new();
        for value in values {
            for identity in statement.query_map([*value, first, last], |row| row.get::<_, i64>(0))? {
                identities.insert(identity?);
            }
        }
        let mut job = self.connection.prepare_cached("SELECT job FROM identities WHERE id = ?1")?;
        let mut jobs = HashSet::new();
        for identity in identities {
            jobs.extend(job.query_row([identity], |row| row.get::<_, Option<i64>>(0))?);
        }
        Ok(jobs)
    }
}

const JOB_COLUMNS: &str =
    "SELECT jobs.id, jobs.job, hosts.host_id, jobs.first_time, jobs.last_time, jobs.finished,
     jobs.bytes_out, jobs.bytes_in";

struct JobColumns {
    id: i64,
    job: Vec<u8>,
    host_id: String,
    first: i64,
    last: i64,
    finished: bool,
    bytes_out: i64,
    bytes_in: i64,
}

fn job_columns(row: &Row<'_>) -> rusqlite::Result<JobColumns> {
    Ok(JobColumns {
        id: row.get(0)?,
        job: row.get(1)?,
        host_id: row.get(2)?,
        first: row.get(3)?,
        last: row.get(4)?,
        finished: row.get(5)?,
        bytes_out: row.get(6)?,
        bytes_in: row.get(7)?,
    })
}
