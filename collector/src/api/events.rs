//! Jobs, events and the collector's acts.

use axum::{
    extract::{Path, RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use buildtrail_proto::v1::{ListActsRequest, ListJobsRequest, RecordedAct, SearchEventsRequest};
use buildtrail_words::{acts::what, columns};

use super::{
    Api,
    answer::{self, List, Shape},
    parameters::{
        CURSOR, Described, HOST, JOB_SORT, KINDS, ORDER, Parameters, REVERSED, SINCE, UNTIL, WHERE, limit,
    },
    problem::Problem,
};
use crate::access::Person;

pub(super) const OF_JOBS: &[Described] = &[WHERE, SINCE, UNTIL, JOB_SORT, REVERSED, limit(1000), CURSOR];
pub(super) const OF_EVENTS: &[Described] = &[WHERE, SINCE, UNTIL, ORDER, limit(10_000), CURSOR];
pub(super) const OF_ACTS: &[Described] = &[KINDS, HOST, SINCE, UNTIL, limit(10_000)];

pub(super) async fn jobs(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_JOBS)?;
    let request = ListJobsRequest {
        search: Some(asked.search()?),
        limit: asked.number("limit"),
        cursor: asked.text("cursor").to_owned(),
        sort: asked.job_sort().into(),
        reversed: asked.flag("reversed"),
    };
    let found = api.queries.jobs(&person, request).await?;
    let list = List {
        items: &found.jobs,
        titles: columns::JOB_TITLES.to_vec(),
        cells: columns::job,
        next_cursor: &found.next_cursor,
    };
    Ok(answer::list(shape, &found, &list))
}

pub(super) async fn job(
    State(api): State<Api>,
    person: Person,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    Parameters::read(query.as_deref(), &[])?;
    let found = api.queries.job(&person, &id).await?;
    let list = List {
        items: &found.timeline,
        titles: columns::event_titles(),
        cells: columns::event,
        next_cursor: "",
    };
    Ok(answer::list(shape, &found, &list))
}

pub(super) async fn events(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_EVENTS)?;
    let request = SearchEventsRequest {
        search: Some(asked.search()?),
        limit: asked.number("limit"),
        cursor: asked.text("cursor").to_owned(),
        order: asked.order().into(),
    };
    let found = api.queries.search(&person, request).await?;
    let list = List {
        items: &found.events,
        titles: columns::event_titles(),
        cells: columns::event,
        next_cursor: &found.next_cursor,
    };
    Ok(answer::list(shape, &found, &list))
}

pub(super) async fn acts(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_ACTS)?;
    let request = ListActsRequest {
        kinds: asked.list("kind"),
        host_id: asked.text("host").to_owned(),
        since: asked.time("since"),
        until: asked.time("until"),
        limit: asked.number("limit"),
    };
    let found = api.queries.acts(&person, request).await?;
    let cells = |act: &RecordedAct| {
        let entry = act.entry.clone().unwrap_or_default();
        vec![columns::utc(entry.time.as_ref()), act.record.to_string(), act.kind.clone(), what(&entry)]
    };
    let titles = vec!["time", "record", "kind", "what"];
    let list = List { items: &found.acts, titles, cells, next_cursor: "" };
    Ok(answer::list(shape, &found, &list))
}
