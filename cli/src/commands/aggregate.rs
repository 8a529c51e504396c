//! `buildtrail secrets`, `buildtrail destinations` and `buildtrail aggregate`: counts by the values of fields.

use anyhow::Result;
use buildtrail_proto::v1::{
    AggregateRequest, AggregateResponse, AggregateRow, AggregateSort, Bucket, Search,
};

use super::Context;
use crate::{
    args::{Aggregate, Ranking, RowOrder, Span},
    columns,
    connect::explain,
    display,
    list::{List, titles},
    time,
};

/// Columns of a table behind those of the fields: title, width, cell.
type Column = (&'static str, usize);
const EVENTS: Column = ("EVENTS", 12);
const JOBS: Column = ("JOBS", 10);
const BYTES_OUT: Column = ("BYTES OUT", 14);
const BYTES_IN: Column = ("BYTES IN", 14);
const FIRST: Column = ("FIRST", 24);
const LAST: Column = ("LAST", 24);

/// Secrets of the catalogue and uses of credentials are counted each by itself, and ranked together.
pub(super) async fn secrets(context: &mut Context, asked: Ranking) -> Result<u8> {
    let (sort, limit) = (order(asked.sort), asked.limit);
    let search = asked.which.search(Some(asked.period))?;
    let list = List {
        name: "rows",
        columns: vec![("WHAT", 10), ("SECRET OR CREDENTIAL", 60), EVENTS, JOBS, FIRST, LAST],
        row: |row: &AggregateRow| {
            let mut cells = values(row);
            cells.extend([row.events.to_string(), row.jobs.to_string()]);
            cells.extend([time::utc(row.first.as_ref()), time::utc(row.last.as_ref())]);
            cells
        },
        titles: titles(["what", "name"].into_iter().chain(columns::AGGREGATE_TITLES)),
        cells: columns::aggregate,
        nothing: "No secrets and no credentials.",
    };
    let secrets = ask(context, request(search.clone(), &["secret"], None, limit, sort)).await?;
    let credentials = ask(context, request(search, &["credential"], None, limit, sort)).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    print(context, &columns::secrets(secrets, credentials, sort, most), &list)
}

pub(super) async fn destinations(context: &mut Context, asked: Ranking) -> Result<u8> {
    let sort = order(asked.sort);
    let limit = asked.limit;
    let search = asked.which.search(Some(asked.period))?;
    let list = List {
        name: "rows",
        columns: vec![("DESTINATION", 60), JOBS, BYTES_OUT, BYTES_IN, FIRST, LAST],
        row: |row: &AggregateRow| {
            let mut cells = values(row);
            cells.extend([row.jobs, row.bytes_out, row.bytes_in].map(|number| number.to_string()));
            cells.extend([time::utc(row.first.as_ref()), time::utc(row.last.as_ref())]);
            cells
        },
        titles: titles(["dest"].into_iter().chain(columns::AGGREGATE_TITLES)),
        cells: columns::aggregate,
        nothing: "No destinations.",
    };
    let answer = ask(context, request(search, &["dest"], None, limit, sort)).await?;
    print(context, &answer, &list)
}

pub(super) async fn aggregate(context: &mut Context, asked: Aggregate) -> Result<u8> {
    let search = asked.which.search(Some(asked.period))?;
    let by: Vec<&str> = asked.by.iter().map(String::as_str).collect();
    let mut shown: Vec<Column> = Vec::new();
    for field in buildtrail_query::Field::ALL {
        if by.contains(&field.name()) {
            shown.push((field.name(), 40));
        }
    }
    // In the order of the question, as the values are.
    shown.sort_by_key(|(name, _)| by.iter().position(|field| field == name));
    shown.extend([("TIME", 24), EVENTS, JOBS, BYTES_OUT, BYTES_IN, FIRST, LAST]);
    let list = List {
        name: "rows",
        columns: shown,
        row: |row: &AggregateRow| {
            let mut cells = values(row);
            cells.push(time::utc(row.time.as_ref()));
            cells
                .extend([row.events, row.jobs, row.bytes_out, row.bytes_in].map(|number| number.to_string()));
            cells.extend([time::utc(row.first.as_ref()), time::utc(row.last.as_ref())]);
            cells
        },
        titles: titles(by.iter().copied().chain(columns::AGGREGATE_TITLES)),
        cells: columns::aggregate,
        nothing: "Nothing matches.",
    };
    let request = request(search, &by, asked.over, asked.limit, order(asked.sort));
    let answer = ask(context, request).await?;
    print(context, &answer, &list)
}

fn request(
    search: Search,
    by: &[&str],
    over: Option<Span>,
    limit: u32,
    sort: AggregateSort,
) -> AggregateRequest {
    let bucket = match over {
        None => Bucket::Unspecified,
        Some(Span::Minute) => Bucket::Minute,
        Some(Span::Hour) => Bucket::Hour,
        Some(Span::Day) => Bucket::Day,
    };
    AggregateRequest {
        search: Some(search),
        by: by.iter().map(|&field| field.to_owned()).collect(),
        over_time: bucket.into(),
        limit,
        sort: sort.into(),
    }
}

fn order(order: RowOrder) -> AggregateSort {
    match order {
        RowOrder::Events => AggregateSort::Events,
        RowOrder::Jobs => AggregateSort::Jobs,
        RowOrder::Last => AggregateSort::Last,
        RowOrder::First => AggregateSort::First,
        RowOrder::BytesOut => AggregateSort::BytesOut,
        RowOrder::Time => AggregateSort::Time,
    }
}

async fn ask(context: &Context, request: AggregateRequest) -> Result<AggregateResponse> {
    let mut client = context.client().await?;
    Ok(client.aggregate(request).await.map_err(|status| explain(&status))?.into_inner())
}

fn print(context: &mut Context, answer: &AggregateResponse, list: &List<AggregateRow>) -> Result<u8> {
    let mut printer = list.begin(&mut context.out, context.shape)?;
    printer.page(&mut context.out, &answer.rows)?;
    let mut also = vec![("more", answer.more.into())];
    if let Some(since) = &answer.only_since {
        also.push(("only_since", time::utc(Some(since)).into()));
    }
    printer.end(&mut context.out, &also)?;
    context.out.flush()?;
    if answer.more {
        eprintln!(
            "buildtrail: there are more rows than these {}: raise --limit or narrow --where",
            answer.rows.len()
        );
    }
    if let Some(since) = &answer.only_since {
        eprintln!(
            "buildtrail: these numbers are of the time since {}; what was before is too much to be counted this way: \
             narrow --since and --until",
            time::utc(Some(since))
        );
    }
    Ok(0)
}

fn values(row: &AggregateRow) -> Vec<String> {
    row.values
        .iter()
        .map(|value| if value.is_empty() { "-".into() } else { display::safe(value, false) })
        .collect()
}
