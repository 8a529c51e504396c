//! Counts by the values of fields, and hosts.

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use buildtrail_proto::v1::{AggregateRequest, AggregateResponse, AggregateSort};
use buildtrail_words::columns;

use super::{
    Api,
    answer::{self, List, Shape},
    parameters::{BY, Described, OVER, Parameters, ROW_SORT, SINCE, UNTIL, WHERE, limit},
    problem::Problem,
};
use crate::access::Person;

pub(super) const OF_AGGREGATE: &[Described] = &[WHERE, SINCE, UNTIL, BY, OVER, ROW_SORT, limit(10_000)];
pub(super) const OF_RANKING: &[Described] = &[WHERE, SINCE, UNTIL, ROW_SORT, limit(10_000)];
const MOST: u32 = 1000;

pub(super) async fn aggregate(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_AGGREGATE)?;
    let by = asked.list("by");
    let found = count(&api, &person, &asked, by.clone(), AggregateSort::Events).await?;
    let titles: Vec<&str> = by.iter().map(String::as_str).collect();
    Ok(rows(shape, &found, &titles))
}

/// Secrets of the catalogue and uses of credentials are counted each by itself, and ranked together.
pub(super) async fn secrets(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_RANKING)?;
    let secrets = count(&api, &person, &asked, vec!["secret".into()], AggregateSort::Jobs).await?;
    let credentials = count(&api, &person, &asked, vec!["credential".into()], AggregateSort::Jobs).await?;
    let limit = Some(asked.number("limit")).filter(|limit| *limit > 0).unwrap_or(MOST);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = columns::secrets(secrets, credentials, asked.row_sort(AggregateSort::Jobs), limit);
    Ok(rows(shape, &found, &["what", "name"]))
}

pub(super) async fn destinations(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_RANKING)?;
    let found = count(&api, &person, &asked, vec!["dest".into()], AggregateSort::Jobs).await?;
    Ok(rows(shape, &found, &["dest"]))
}

async fn count(
    api: &Api,
    person: &Person,
    asked: &Parameters,
    by: Vec<String>,
    sort: AggregateSort,
) -> Result<AggregateResponse, Problem> {
    let request = AggregateRequest {
        search: Some(asked.search()?),
        by,
        over_time: asked.bucket().into(),
        limit: asked.number("limit"),
        sort: asked.row_sort(sort).into(),
    };
    Ok(api.queries.aggregate(person, request).await?)
}

fn rows(shape: Shape, found: &AggregateResponse, fields: &[&str]) -> Response {
    let titles = fields.iter().copied().chain(columns::AGGREGATE_TITLES).collect();
    let list = List { items: &found.rows, titles, cells: columns::aggregate, next_cursor: "" };
    answer::list(shape, found, &list)
}

pub(super) async fn hosts(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shape = Shape::wanted(&headers)?;
    Parameters::read(query.as_deref(), &[])?;
    let found = api.queries.hosts(&person).await?;
    let titles = columns::HOST_TITLES.to_vec();
    let list = List { items: &found.hosts, titles, cells: columns::host, next_cursor: "" };
    Ok(answer::list(shape, &found, &list))
}
