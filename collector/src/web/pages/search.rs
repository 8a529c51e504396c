//! Events that match, and how many of them by what and when.

use axum::response::Response;
use buildtrail_proto::v1::{AggregateResponse, SearchEventsResponse};
use buildtrail_query::{Field, ParseError};
use maud::{Markup, html};

use super::{
    events::{self, Around},
    subjects::narrowed,
};
use crate::web::{
    chart::{self, Bar},
    layout::{Section, View, page, title},
    link::to,
    parts::{Ask, ask, empty, pages, spans},
    text::{bytes, number, short},
};

/// What the page shows.
pub(in crate::web) struct Search<'a> {
    pub(in crate::web) text: &'a str,
    pub(in crate::web) span: &'a str,
    /// Counted by this field instead of listed.
    pub(in crate::web) by: Option<Field>,
    pub(in crate::web) answer: Result<Found, ParseError>,
}

/// The answer.
pub(in crate::web) struct Found {
    pub(in crate::web) over_time: Vec<Bar>,
    pub(in crate::web) axis: Vec<String>,
    pub(in crate::web) list: Listed,
}

/// Events, or numbers of them.
pub(in crate::web) enum Listed {
    Events(SearchEventsResponse),
    Rows(AggregateResponse),
}

pub(in crate::web) fn show(view: &View, search: &Search<'_>) -> Response {
    let question = Ask {
        action: "/search",
        text: search.text,
        error: search.answer.as_ref().err(),
        button: "Search",
        example: "repo=acme/* kind=secret.access secret~aws dest=*.example.com",
    };
    let controls = html! {
        (spans(view, search.span))
        label { "Count by"
            select name="by" {
                option value="" selected[search.by.is_none()] { "– list events –" }
                @for field in Field::ALL.into_iter().filter(|field| field.is_indexed()) {
                    option value=(field.name()) selected[search.by == Some(field)] { (field.name()) }
                }
            }
        }
        a.hint href="/help" { "Fields and examples" }
    };
    let content = html! {
        (title(&html! { "Search" }, &html! { "Every event of every job that you may see." }))
        (ask(view, &question, &controls))
        @if let Ok(found) = &search.answer { (results(view, search, found)) }
    };
    page(view, Section::Search, "Search", &content)
}

fn results(view: &View, search: &Search<'_>, found: &Found) -> Markup {
    html! {
        @if found.over_time.iter().any(|bar| bar.value > 0) {
            section.card { header { h2 { "Over time" } p.end { a href=(to("/tail").with("where", search.text)) { "Watch live" } } } (chart::bars("Events", &found.axis, &found.over_time)) }
        }
        section.card {
            @match (&found.list, search.by) {
                (Listed::Events(answer), _) => {
                    @if answer.events.is_empty() { (nothing(answer)) } @else { (events::table(view, &answer.events, Around::Anywhere)) }
                    (pages(view, &answer.next_cursor, "Older events"))
                }
                (Listed::Rows(answer), Some(field)) => (rows(view, search, field, answer)),
                (Listed::Rows(_), None) => {}
            }
        }
    }
}

fn nothing(answer: &SearchEventsResponse) -> Markup {
    empty(&html! {
        @if answer.next_cursor.is_empty() { "No event matches. Choose a longer time, or take a condition away." }
        @else { "Nothing yet; not everything was looked through. Go on with the older events." }
    })
}

fn rows(view: &View, search: &Search<'_>, field: Field, answer: &AggregateResponse) -> Markup {
    let greatest = answer.rows.iter().map(|row| row.events).max().unwrap_or_default();
    html! {
        @if answer.rows.is_empty() { (empty(&html! { "No event matches." })) }
        @else {
            table.cards {
                thead { tr { th { (field.name()) } th.num { "Events" } th { "" } th.num { "Jobs" } th.num { "Sent" } th { "First (" (view.zone.name()) ")" } th { "Last" } } }
                tbody { @for row in &answer.rows {
                    @let value = row.values.first().map_or("", String::as_str);
                    @let words = narrowed(search.text, &[field], &row.values);
                    tr {
                        th scope="row" { a href=(to("/search").with("where", &words).with("span", search.span)) { @if value.is_empty() { "(none)" } @else { (short(value)) } } }
                        td.num data-label="Events" { (number(row.events)) }
                        td.graph { (chart::share(row.events, greatest)) }
                        td.num data-label="Jobs" { (number(row.jobs)) }
                        td.num data-label="Sent" { (bytes(row.bytes_out)) }
                        td.fit data-label="First" { (view.zone.time(row.first.as_ref())) }
                        td.fit data-label="Last" { (view.zone.time(row.last.as_ref())) }
                    }
                } }
            }
            @if answer.more { (empty(&html! { "There are more; these are the most frequent." })) }
        }
    }
}
