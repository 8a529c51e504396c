//! `buildtrail events` and `buildtrail tail`

use anyhow::Result;
use buildtrail_proto::v1::{AuditEvent, Order, Search, SearchEventsRequest, TailRequest};
use tokio_stream::StreamExt as _;

use super::{Context, Pages};
use crate::{
    args::{EventOrder, Events, Shape, Which},
    columns,
    connect::explain,
    describe, display,
    list::{List, titles},
    time,
};

const COLUMNS: [(&str, usize); 6] =
    [("TIME", 24), ("JOB", 12), ("STEP", 24), ("KIND", 17), ("PROCESS", 24), ("WHAT", usize::MAX)];
/// Most events in one answer of the collector.
const PAGE: usize = 10_000;

pub(super) fn list_of_events() -> List<AuditEvent> {
    List {
        name: "events",
        columns: COLUMNS.to_vec(),
        row,
        titles: titles(columns::event_titles()),
        cells: columns::event,
        nothing: "No events.",
    }
}

pub(super) async fn list(context: &mut Context, events: Events) -> Result<u8> {
    let search: Search = events.which.search(Some(events.period))?;
    let order = match events.sort {
        EventOrder::Newest => Order::NewestFirst,
        EventOrder::Oldest => Order::OldestFirst,
    };
    let list = list_of_events();
    let mut client = context.client().await?;
    let mut printer = list.begin(&mut context.out, context.shape)?;
    let mut pages = Pages::new(events.paging, events.limit);
    while let Some(limit) = pages.next(printer.printed(), PAGE) {
        let request = SearchEventsRequest {
            search: Some(search.clone()),
            limit,
            cursor: pages.cursor().to_owned(),
            order: order.into(),
        };
        let answer = client.search_events(request).await.map_err(|status| explain(&status))?.into_inner();
        printer.page(&mut context.out, &answer.events)?;
        pages.reached(answer.next_cursor);
    }
    context.end(printer, &pages, "events")
}

pub(super) async fn tail(context: &mut Context, which: Which) -> Result<u8> {
    let request = TailRequest { search: Some(which.search(None)?) };
    let answer = context.client().await?.tail(request).await.map_err(|status| explain(&status))?;
    let mut events = answer.into_inner();
    if context.shape == Shape::Csv {
        context.out.csv(columns::event_titles())?;
        context.out.flush()?;
    }
    while let Some(event) = events.next().await {
        let event = event.map_err(|status| explain(&status))?;
        match context.shape {
            Shape::Json | Shape::NdJson => context.out.json(&event)?,
            Shape::Csv => context.out.csv(columns::event(&event))?,
            Shape::Table => context.out.line(tail_line(&event))?,
        }
        context.out.flush()?;
    }
    Ok(0)
}

fn row(event: &AuditEvent) -> Vec<String> {
    vec![
        time::utc(event.time.as_ref()),
        describe::short_job(event.job.as_ref()),
        describe::step(event.step.as_ref(), event.text_escaped),
        event.kind().to_owned(),
        describe::process(event, false),
        describe::what(event),
    ]
}

/// A row of the same columns whose widths do not depend on what follows.
fn tail_line(event: &AuditEvent) -> String {
    let cells = row(event);
    let mut line = String::new();
    for (cell, (_, cap)) in cells.iter().zip(COLUMNS) {
        if cap == usize::MAX {
            line.push_str(&display::cut(cell, TAIL_WHAT));
        } else {
            let cell = display::cut(cell, cap);
            line.push_str(&cell);
            line.push_str(&" ".repeat(cap + 2 - display::width(&cell)));
        }
    }
    line
}

/// Widest description in a tail, in terminal columns.
const TAIL_WHAT: usize = 300;
