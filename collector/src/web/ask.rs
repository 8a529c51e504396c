//! What pages ask of the index, always as the person who looks.

use std::collections::HashSet;

use buildtrail_proto::{
    Timestamp, now,
    v1::{
        AggregateRequest, AggregateResponse, AggregateRow, AggregateSort, AuditEvent, Bucket, Condition,
        JobSummary, ListActsRequest, ListJobsRequest, Operator, RecordedAct, Search, SearchEventsRequest,
    },
};
use buildtrail_query::{Field, ParseError, exactly, parse};

use super::{chart::Bar, pages::subjects::Rows, zone::Zone};
use crate::{
    access::{Action, Person},
    query::{Queries, QueryError},
};

const DAY_SECONDS: i64 = 86_400;
/// Rows of a list of names.
const NAMES: u32 = 200;
/// Names that are looked at for what is new.
const NEWEST: u32 = 100;

/// One person's questions.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) queries: &'a Queries,
    pub(super) person: &'a Person,
}

/// Adds "this field is exactly this" to a search.
pub(super) fn and(mut search: Search, field: &str, values: &[&str]) -> Search {
    let values = values.iter().map(|value| exactly(value)).collect();
    search.r#where.push(Condition { field: field.to_owned(), operator: Operator::Equals.into(), values });
    search
}

/// The search of a page: its words and its span of time, unless the words name one.
pub(super) fn searched(words: &str, span: &str) -> Result<Search, ParseError> {
    let mut search = parse(words)?;
    if search.since.is_none() && search.until.is_none() {
        search.since = since(span);
    }
    Ok(search)
}

/// Everything of a span of time.
pub(super) fn within(span: &str) -> Search {
    Search { since: since(span), ..Search::default() }
}

fn since(span: &str) -> Option<Timestamp> {
    let seconds = match span {
        "1h" => 3600,
        "24h" => DAY_SECONDS,
        "7d" => 7 * DAY_SECONDS,
        "30d" => 30 * DAY_SECONDS,
        _ => return None,
    };
    let now = now();
    Some(Timestamp { seconds: now.seconds - seconds, nanos: 0 })
}

/// Bars of equal spans up to now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    bucket: Bucket,
    width: i64,
    count: i64,
}

impl Scale {
    /// Fits a span of time; days where it is long or open.
    pub(super) fn of(span: &str) -> Self {
        match span {
            "1h" => Self { bucket: Bucket::Minute, width: 60, count: 60 },
            "24h" => Self { bucket: Bucket::Hour, width: 3600, count: 25 },
            "7d" => Self { bucket: Bucket::Day, width: DAY_SECONDS, count: 8 },
            _ => Self { bucket: Bucket::Day, width: DAY_SECONDS, count: 31 },
        }
    }

    fn starts(self) -> impl Iterator<Item = i64> {
        let last = now().seconds.div_euclid(self.width) * self.width;
        (0..self.count).rev().map(move |back| last - back * self.width)
    }

    /// Bars of what `measure` takes from each row.
    pub(super) fn bars(
        self,
        zone: &Zone,
        rows: &[AggregateRow],
        measure: fn(&AggregateRow) -> u64,
    ) -> Vec<Bar> {
        let at = |row: &AggregateRow| row.time.map_or(0, |time| time.seconds);
        let bar = |start: i64| {
            let time = Timestamp { seconds: start, nanos: 0 };
            let value = rows.iter().filter(|row| at(row) == start).map(measure).sum();
            Bar {
                label: zone.time(Some(&time)),
                title: zone.axis(&time, self.width == DAY_SECONDS),
                value,
                alarm: false,
            }
        };
        self.starts().map(bar).collect()
    }

    /// What stands below the bars.
    pub(super) fn axis(self, zone: &Zone) -> Vec<String> {
        let starts: Vec<i64> = self.starts().collect();
        let step = (starts.len() / 4).max(1);
        let shown = starts.iter().step_by(step);
        shown
            .map(|start| zone.axis(&Timestamp { seconds: *start, nanos: 0 }, self.width == DAY_SECONDS))
            .collect()
    }
}

impl Asking<'_> {
    pub(super) fn may(&self, action: Action) -> bool {
        self.person.may(action)
    }

    pub(super) async fn aggregate(
        &self,
        search: Search,
        by: &[Field],
        sort: AggregateSort,
        limit: u32,
    ) -> Result<AggregateResponse, QueryError> {
        let request = AggregateRequest {
            search: Some(search),
            by: by.iter().map(|field| field.name().to_owned()).collect(),
            sort: sort.into(),
            limit,
            ..AggregateRequest::default()
        };
        self.queries.aggregate(self.person, request).await
    }

    /// All of it as one row; `None`: nothing matches.
    pub(super) async fn total(&self, search: Search) -> Result<Option<AggregateRow>, QueryError> {
        let answer = self.aggregate(search, &[], AggregateSort::Events, 1).await?;
        Ok(answer.rows.into_iter().next().filter(|row| row.events > 0))
    }

    pub(super) async fn over_time(
        &self,
        search: Search,
        scale: Scale,
    ) -> Result<Vec<AggregateRow>, QueryError> {
        let mut search = search;
        let oldest = scale.starts().next().unwrap_or_default();
        if search.since.is_none_or(|since| since.seconds < oldest) {
            search.since = Some(Timestamp { seconds: oldest, nanos: 0 });
        }
        let request = AggregateRequest {
            search: Some(search),
            over_time: scale.bucket.into(),
            sort: AggregateSort::Time.into(),
            ..AggregateRequest::default()
        };
        Ok(self.queries.aggregate(self.person, request).await?.rows)
    }

    /// Names of one field, the most frequent first, and which of them are new.
    pub(super) async fn names(&self, search: Search, field: Field) -> Result<Rows, QueryError> {
        let search = and_any(search, field);
        let by = [field];
        let (listed, new) =
            tokio::join!(self.aggregate(search, &by, AggregateSort::Events, NAMES), self.new_names(field));
        let (listed, new) = (listed?, new?);
        Ok(Rows { rows: named(listed.rows), more: listed.more, new: new.new })
    }

    /// Names that were first seen within the last 24 hours, newest first.
    pub(super) async fn new_names(&self, field: Field) -> Result<Rows, QueryError> {
        let search = and_any(Search::default(), field);
        let answer = self.aggregate(search, &[field], AggregateSort::First, NEWEST).await?;
        let from = now().seconds - DAY_SECONDS;
        let is_new = |row: &AggregateRow| row.first.is_some_and(|first| first.seconds >= from);
        let rows: Vec<AggregateRow> = named(answer.rows).into_iter().filter(is_new).collect();
        let new: HashSet<String> = rows.iter().filter_map(|row| row.values.first().cloned()).collect();
        Ok(Rows { rows, more: false, new })
    }

    /// Newest first.
    pub(super) async fn events(&self, search: Search, limit: u32) -> Result<Vec<AuditEvent>, QueryError> {
        let request = SearchEventsRequest { search: Some(search), limit, ..SearchEventsRequest::default() };
        Ok(self.queries.search(self.person, request).await?.events)
    }

    /// Newest first.
    pub(super) async fn jobs(&self, search: Search, limit: u32) -> Result<Vec<JobSummary>, QueryError> {
        let request = ListJobsRequest { search: Some(search), limit, ..ListJobsRequest::default() };
        Ok(self.queries.jobs(self.person, request).await?.jobs)
    }

    /// Newest first; none for those who may not read them.
    pub(super) async fn acts(&self, request: ListActsRequest) -> Result<Vec<RecordedAct>, QueryError> {
        if !self.may(Action::ReadActs) {
            return Ok(Vec::new());
        }
        let mut acts = self.queries.acts(self.person, request).await?.acts;
        acts.reverse();
        Ok(acts)
    }
}

/// Only events that have a value of the field.
fn and_any(mut search: Search, field: Field) -> Search {
    search.r#where.push(Condition {
        field: field.name().to_owned(),
        operator: Operator::NotEquals.into(),
        values: vec![String::new()],
    });
    search
}

fn named(rows: Vec<AggregateRow>) -> Vec<AggregateRow> {
    rows.into_iter().filter(|row| row.values.first().is_some_and(|value| !value.is_empty())).collect()
}
