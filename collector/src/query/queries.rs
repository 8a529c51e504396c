//! The questions themselves, whatever door they come through.
//!
//! In: who asks, and the request. Out: a bounded answer of what he may see. That he asked is written to the log here, once.

use std::{sync::Arc, time::Duration};

use buildtrail_proto::{
    ACT_KINDS, timestamp_from_unix_nanos, unix_nanos,
    v1::{
        AggregateRequest, AggregateResponse, AggregateRow, AggregateSort, AuditEvent, Bucket, Condition,
        GetJobResponse, JobSort, ListActsRequest, ListActsResponse, ListJobsRequest, ListJobsResponse,
        Operator, Order as AskedOrder, Search, SearchEventsRequest, SearchEventsResponse,
    },
};
use buildtrail_query::{Compiled, Field, Pattern, Scope, exactly, to_text};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{QueryError, bounded, cursor::Question, tail};
use crate::{
    access::{Action, Person},
    acts::Questions,
    dark::Watch,
    health::{Health, Refusal},
    store::{
        ActSelection, Asked, Bounds, By, Counted, Group, JobKey, JobOrder, JobRow, LiveEvents, Order,
        Position, Reader, Resolved, Tally,
    },
};

const DEFAULT_JOBS: usize = 50;
const MAX_JOBS: usize = 1000;
const DEFAULT_EVENTS: usize = 1000;
const MAX_EVENTS: usize = 10_000;
const MAX_STEPS: usize = 1000;
const MAX_FIELDS: usize = 3;
/// Of the events in one answer, encoded: gRPC clients refuse more than 4 MiB unless told otherwise.
const MAX_ANSWER_BYTES: usize = 3 << 20;
/// Events that are looked through for one page.
const LOOKED_AT: usize = 50_000;
/// Events that are counted one by one for one answer.
const COUNTED: usize = 200_000;
const HOUR: i64 = 3_600_000_000_000;

/// What questions need. Clones are one.
#[derive(Clone)]
pub(crate) struct Queries {
    pub(crate) reader: Reader,
    pub(crate) limit: Duration,
    pub(crate) live: LiveEvents,
    pub(crate) tails: Arc<Semaphore>,
    pub(crate) health: Arc<Health>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) watch: Arc<Watch>,
}

/// Live events; ends with the reason when it must.
pub(crate) type LiveStream = ReceiverStream<Result<AuditEvent, Status>>;

impl Queries {
    /// Events, a page at a time.
    pub(crate) async fn search(
        &self,
        person: &Person,
        request: SearchEventsRequest,
    ) -> Result<SearchEventsResponse, QueryError> {
        person.require(Action::Read)?;
        let search = request.search.clone().unwrap_or_default();
        Compiled::new(&search)?;
        self.asked(person, "SearchEvents", &to_text(&search));
        let order = match request.order() {
            AskedOrder::OldestFirst => Order::OldestFirst,
            AskedOrder::Unspecified | AskedOrder::NewestFirst => Order::NewestFirst,
        };
        let limit = bounded(request.limit, DEFAULT_EVENTS, MAX_EVENTS);
        let bounds = Bounds { events: limit, bytes: MAX_ANSWER_BYTES, looked_at: LOOKED_AT };
        let cursor = request.cursor.clone();
        let question = SearchEventsRequest { limit: 0, cursor: String::new(), ..request };
        let question = Question::new("SearchEvents", &question, &person.scope);
        let after = question.read(&cursor)?.map(|(time, row)| Position { time, row });
        let page = self
            .ask(person, move |asked, scope| {
                let compiled = compile(asked, scope, search)?;
                Ok(asked.search(scope, &compiled, order, after, bounds)?)
            })
            .await?;
        Ok(SearchEventsResponse {
            events: page.events,
            next_cursor: page.next.map(|at| question.cursor((at.time, at.row))).unwrap_or_default(),
            reached: page.next.map(|at| timestamp_from_unix_nanos(at.time.into())),
        })
    }

    /// Jobs, a page at a time.
    pub(crate) async fn jobs(
        &self,
        person: &Person,
        request: ListJobsRequest,
    ) -> Result<ListJobsResponse, QueryError> {
        person.require(Action::Read)?;
        let search = request.search.clone().unwrap_or_default();
        Compiled::new(&search)?;
        self.asked(person, "ListJobs", &to_text(&search));
        let by = match request.sort() {
            JobSort::Unspecified | JobSort::Started => JobKey::Started,
            JobSort::Duration => JobKey::Duration,
            JobSort::Events => JobKey::Events,
            JobSort::BytesOut => JobKey::BytesOut,
        };
        let order = JobOrder { by, descending: !request.reversed };
        let limit = bounded(request.limit, DEFAULT_JOBS, MAX_JOBS);
        let cursor = request.cursor.clone();
        let question = ListJobsRequest { limit: 0, cursor: String::new(), ..request };
        let question = Question::new("ListJobs", &question, &person.scope);
        let after = question.read(&cursor)?;
        let page = self
            .ask(person, move |asked, scope| {
                let compiled = compile(asked, scope, search)?;
                Ok(asked.jobs(scope, &compiled, order, after, limit)?)
            })
            .await?;
        let next_cursor = page.next.map(|at| question.cursor(at)).unwrap_or_default();
        Ok(ListJobsResponse { jobs: page.jobs, next_cursor })
    }

    /// One job with its steps, and everything that it did but execute programs.
    pub(crate) async fn job(&self, person: &Person, prefix: &str) -> Result<GetJobResponse, QueryError> {
        person.require(Action::Read)?;
        self.asked(person, "GetJob", &format!("job {prefix}"));
        let prefix = prefix.to_owned();
        let bounds = Bounds { events: MAX_EVENTS, bytes: MAX_ANSWER_BYTES, looked_at: usize::MAX };
        self.ask(person, move |asked, scope| {
            let job = job(&prefix, asked, scope)?;
            let (timeline, more) = asked.timeline(scope, job, "process.exec", bounds)?;
            let summary = Some(asked.job(scope, job)?);
            Ok(GetJobResponse { summary, steps: asked.steps(scope, job, MAX_STEPS)?, timeline, more })
        })
        .await
    }

    /// Numbers by the values of fields and over time.
    pub(crate) async fn aggregate(
        &self,
        person: &Person,
        request: AggregateRequest,
    ) -> Result<AggregateResponse, QueryError> {
        person.require(Action::Read)?;
        let search = request.search.clone().unwrap_or_default();
        Compiled::new(&search)?;
        let by = by(&request)?;
        let what = format!("{} by {}", to_text(&search), request.by.join(", "));
        self.asked(person, "Aggregate", what.trim());
        let counted = self
            .ask(person, move |asked, scope| {
                let compiled = compile(asked, scope, search)?;
                Ok(asked.aggregate(scope, &compiled, &by, COUNTED)?)
            })
            .await?;
        Ok(rows(counted, request.sort(), bounded(request.limit, DEFAULT_EVENTS, MAX_EVENTS)))
    }

    /// Events as they come.
    pub(crate) async fn tail(&self, person: &Person, search: Search) -> Result<LiveStream, QueryError> {
        person.require(Action::Read)?;
        let Ok(place) = self.tails.clone().try_acquire_owned() else {
            self.health.refuse(Refusal::Busy, person, "limits.max_tails is reached");
            return Err(QueryError::Busy("too many live tails; end one or raise limits.max_tails"));
        };
        if search.since.is_some() || search.until.is_some() {
            return Err(QueryError::Asked("a tail shows what is to come; leave since and until out".into()));
        }
        Compiled::new(&search)?;
        self.asked(person, "Tail", &to_text(&search));
        let search = self.ask(person, move |asked, scope| compile(asked, scope, search)).await?;
        let tail = tail::Tail {
            search,
            events: self.live.subscribe(),
            reader: person.clone(),
            health: self.health.clone(),
            stopping: self.stopping.clone(),
            _place: place,
        };
        Ok(tail.start())
    }

    /// What the collector did and noticed itself.
    pub(crate) async fn acts(
        &self,
        person: &Person,
        request: ListActsRequest,
    ) -> Result<ListActsResponse, QueryError> {
        if let Some(unknown) = request.kinds.iter().find(|kind| !ACT_KINDS.contains(&kind.as_str())) {
            let kinds = ACT_KINDS.join(", ");
            return Err(QueryError::Asked(format!(
                "there is no kind of act {unknown:?}; the kinds are {kinds}"
            )));
        }
        if request.kinds.len() > ACT_KINDS.len() {
            return Err(QueryError::Asked("a kind is named twice".into()));
        }
        person.require(Action::ReadActs)?;
        self.asked(person, "ListActs", &words(&request));
        let ListActsRequest { kinds, host_id, since, until, limit } = request;
        let times = Compiled::new(&Search { since, until, ..Search::default() })?;
        let selection = ActSelection { kinds, host_id, since: times.since(), until: times.until() };
        let limit = bounded(limit, DEFAULT_EVENTS, MAX_EVENTS);
        let bounds = Bounds { events: limit, bytes: MAX_ANSWER_BYTES, looked_at: usize::MAX };
        let (mut acts, more) =
            self.ask(person, move |asked, scope| Ok(asked.acts(scope, &selection, bounds)?)).await?;
        acts.reverse();
        Ok(ListActsResponse { acts, more })
    }

    /// Notes that somebody asked.
    pub(crate) fn asked(&self, person: &Person, call: &'static str, what: &str) {
        self.questions.asked(&person.name, call, what);
    }

    /// Asks the index within the person's scope.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        person: &Person,
        question: impl FnOnce(&Asked, &Scope) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let scope = person.scope.clone();
        self.reader.ask(self.limit, move |asked| question(asked, &scope)).await
    }
}

/// Compiles a search in which hosts are also known by their names, which events do not hold.
fn compile(asked: &Asked, scope: &Scope, mut search: Search) -> Result<Compiled, QueryError> {
    if search.r#where.iter().any(|condition| condition.field == Field::Host.name()) {
        let names = asked.host_names(scope)?;
        for condition in search.r#where.iter_mut().filter(|it| it.field == Field::Host.name()) {
            add_host_ids(condition, &names);
        }
    }
    Ok(Compiled::new(&search)?)
}

fn add_host_ids(condition: &mut Condition, names: &[(String, String)]) {
    let contains = condition.operator() == Operator::Contains;
    let asked: Vec<(Pattern, String)> =
        condition.values.iter().map(|it| (Pattern::new(it), it.to_ascii_lowercase())).collect();
    let is_meant = |name: &str| {
        asked.iter().any(|(pattern, text)| {
            if contains { name.to_ascii_lowercase().contains(text) } else { pattern.matches(name) }
        })
    };
    let ids = names.iter().filter(|(_, name)| !name.is_empty() && is_meant(name)).map(|(id, _)| id);
    let ids: Vec<String> = ids
        .take(buildtrail_query::MAX_VALUES / 2)
        .map(|id| if contains { id.clone() } else { exactly(id) })
        .collect();
    condition.values.truncate(buildtrail_query::MAX_VALUES / 2);
    condition.values.extend(ids);
}

/// The one job that an id or the beginning of one names.
pub(crate) fn job(prefix: &str, asked: &Asked, scope: &Scope) -> Result<JobRow, QueryError> {
    if prefix.is_empty() {
        return Err(QueryError::Asked("give a job id, or the beginning of one".into()));
    }
    match asked.resolve(scope, prefix)? {
        Resolved::One(job) => Ok(job),
        Resolved::None => Err(QueryError::NoJob(prefix.chars().take(100).collect())),
        Resolved::Several(ids) => Err(QueryError::AmbiguousJob {
            prefix: prefix.chars().take(100).collect(),
            ids: ids.iter().map(|id| format!("{id:?}")).collect(),
        }),
    }
}

fn by(request: &AggregateRequest) -> Result<By, QueryError> {
    let bucket = match request.over_time() {
        Bucket::Unspecified => None,
        Bucket::Minute => Some(HOUR / 60),
        Bucket::Hour => Some(HOUR),
        Bucket::Day => Some(24 * HOUR),
    };
    if request.by.len() > MAX_FIELDS {
        return Err(QueryError::Asked(format!("at most {MAX_FIELDS} fields can be counted by")));
    }
    let mut fields = Vec::new();
    for word in &request.by {
        let field = Field::parse(word).filter(|field| !matches!(field, Field::Text | Field::Bytes));
        let field = field.ok_or_else(|| {
            let fields =
                Field::ALL.iter().map(|field| field.name()).filter(|name| !matches!(*name, "text" | "bytes"));
            let word: String = word.chars().take(100).collect();
            QueryError::Asked(format!(
                "cannot count by {word:?}; the fields are {}",
                fields.collect::<Vec<_>>().join(", ")
            ))
        })?;
        if fields.contains(&field) {
            return Err(QueryError::Asked(format!("{field} is named twice")));
        }
        fields.push(field);
    }
    Ok(By { fields, bucket })
}

fn rows(counted: Counted, sort: AggregateSort, limit: usize) -> AggregateResponse {
    let mut groups: Vec<(Group, Tally)> = counted.groups.into_iter().collect();
    // Equal ones in the order of their values, so that an answer is the same each time.
    groups.sort_by(|one, other| one.0.cmp(&other.0));
    let key = |tally: &Tally| match sort {
        AggregateSort::Unspecified | AggregateSort::Events => i128::from(tally.events),
        AggregateSort::Jobs => i128::try_from(tally.jobs.len()).unwrap_or(i128::MAX),
        AggregateSort::Last => i128::from(tally.last),
        AggregateSort::First => i128::from(tally.first),
        AggregateSort::BytesOut => i128::from(tally.bytes_out),
        AggregateSort::Time => 0,
    };
    groups.sort_by_key(|(_, tally)| std::cmp::Reverse(key(tally)));
    let more = groups.len() > limit;
    let time = |nanos: i64| Some(timestamp_from_unix_nanos(nanos.into()));
    let row = |(group, tally): (Group, Tally)| AggregateRow {
        values: group.values,
        time: group.time.and_then(time),
        events: tally.events,
        jobs: u64::try_from(tally.jobs.len()).unwrap_or(u64::MAX),
        first: time(tally.first),
        last: time(tally.last),
        bytes_out: tally.bytes_out,
        bytes_in: tally.bytes_in,
    };
    let rows = groups.into_iter().take(limit).map(row).collect();
    AggregateResponse { rows, more, only_since: counted.only_since.and_then(time) }
}

/// What was asked of acts, in words.
fn words(request: &ListActsRequest) -> String {
    let mut words = Vec::new();
    if !request.kinds.is_empty() {
        words.push(format!("kinds {}", request.kinds.join(" ")));
    }
    if !request.host_id.is_empty() {
        words.push(format!("host {}", request.host_id));
    }
    for (name, time) in [("since", &request.since), ("until", &request.until)] {
        if let Some(time) = time {
            let nanos = unix_nanos(time);
            let text = jiff::Timestamp::from_nanosecond(nanos)
                .map_or_else(|_| nanos.to_string(), |it| it.to_string());
            words.push(format!("{name} {text}"));
        }
    }
    words.join(", ")
}
