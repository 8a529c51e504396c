//! `buildtrail events` and `buildtrail tail`

use anyhow::Result;
use buildtrail_proto::v1::{AuditEvent, SearchEventsRequest, TailRequest};
use tokio_stream::StreamExt as _;

use super::Context;
use crate::{
    args::{Events, Which},
    connect::explain,
    describe, display, time,
};

const COLUMNS: [(&str, usize); 6] =
    [("TIME", 24), ("JOB", 12), ("STEP", 24), ("KIND", 17), ("PROCESS", 24), ("WHAT", usize::MAX)];

pub(super) async fn list(context: &mut Context, events: Events) -> Result<u8> {
    let search = Some(events.which.search(Some(events.period)));
    let request = SearchEventsRequest { search, limit: events.limit, ..SearchEventsRequest::default() };
    let answer = context.client().await?.search_events(request).await.map_err(|status| explain(&status))?;
    let mut answer = answer.into_inner();
    answer.events.reverse();
    if context.json {
        for event in &answer.events {
            context.out.json(event)?;
        }
    } else if answer.events.is_empty() {
        context.out.line("No events.")?;
    } else {
        context.out.table(&COLUMNS, &answer.events.iter().map(row).collect::<Vec<_>>())?;
    }
    if !answer.next_cursor.is_empty() {
        context.out.flush()?;
        eprintln!(
            "buildtrail: more events match: these are the newest {}; raise --limit",
            answer.events.len()
        );
    }
    Ok(0)
}

pub(super) async fn tail(context: &mut Context, which: Which) -> Result<u8> {
    let request = TailRequest { search: Some(which.search(None)) };
    let answer = context.client().await?.tail(request).await.map_err(|status| explain(&status))?;
    let mut events = answer.into_inner();
    while let Some(event) = events.next().await {
        let event = event.map_err(|status| explain(&status))?;
        if context.json {
            context.out.json(&event)?;
        } else {
            context.out.line(tail_line(&event))?;
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
