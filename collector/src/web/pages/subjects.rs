//! Secrets, credentials and destinations: lists, and one of them.

use std::collections::HashSet;

use axum::response::Response;
use buildtrail_proto::v1::{AggregateRow, AuditEvent};
use buildtrail_query::{Field, ParseError};
use maud::{Markup, html};

use super::{
    events::{self, Around},
    job::condition,
};
use crate::web::{
    chart::{self, Bar},
    layout::{Section, View, page, search_for, title, title_below},
    parts::{Ask, Tone, ask, badge, card, empty, named, notice, spans},
    text::{bytes, counted, number, whole},
};

/// What a page is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum Subject {
    Secret,
    Credential,
    Destination,
}

impl Subject {
    pub(in crate::web) fn field(self) -> Field {
        match self {
            Self::Secret => Field::Secret,
            Self::Credential => Field::Credential,
            Self::Destination => Field::Dest,
        }
    }

    fn page(self) -> &'static str {
        match self {
            Self::Secret => "/secret",
            Self::Credential => "/credential",
            Self::Destination => "/destination",
        }
    }

    fn list(self) -> (&'static str, &'static str) {
        match self {
            Self::Secret | Self::Credential => ("/secrets", "Secrets"),
            Self::Destination => ("/destinations", "Destinations"),
        }
    }

    fn section(self) -> Section {
        match self {
            Self::Secret | Self::Credential => Section::Secrets,
            Self::Destination => Section::Destinations,
        }
    }

    fn one(self) -> &'static str {
        match self {
            Self::Secret => "Secret file of the catalogue",
            Self::Credential => "Credential",
            Self::Destination => "Destination",
        }
    }

    fn has_bytes(self) -> bool {
        self == Self::Destination
    }
}

/// Rows by one field, over some time.
#[derive(Default)]
pub(in crate::web) struct Rows {
    pub(in crate::web) rows: Vec<AggregateRow>,
    pub(in crate::web) more: bool,
    /// Names that were never seen before the last 24 hours.
    pub(in crate::web) new: HashSet<String>,
}

/// A list page.
pub(in crate::web) struct List<'a> {
    pub(in crate::web) text: &'a str,
    pub(in crate::web) span: &'a str,
    pub(in crate::web) answer: Result<Vec<(Subject, Rows)>, ParseError>,
}

pub(in crate::web) fn secrets(view: &View, list: &List<'_>) -> Response {
    let head = title(
        &html! { "Secrets" },
        &html! { "Which secrets and credentials your builds touched, how often, and since when. Values are never recorded." },
    );
    show_list(view, Section::Secrets, "Secrets", &head, list, "repo=acme/* family=aws")
}

pub(in crate::web) fn destinations(view: &View, list: &List<'_>) -> Response {
    let head = title(
        &html! { "Destinations" },
        &html! { "Where your builds connect to: by name where one is known, else by address." },
    );
    show_list(
        view,
        Section::Destinations,
        "Destinations",
        &head,
        list,
        "repo=acme/* dest=*.example.com port!=443",
    )
}

fn show_list(
    view: &View,
    section: Section,
    name: &str,
    head: &Markup,
    list: &List<'_>,
    example: &str,
) -> Response {
    let action = view.address.path();
    let question =
        Ask { action, text: list.text, error: list.answer.as_ref().err(), button: "Filter", example };
    let content = html! {
        (head)
        (ask(view, &question, &spans(view, list.span)))
        @if let Ok(tables) = &list.answer {
            @for (subject, rows) in tables { (list_card(view, *subject, rows)) }
        }
    };
    page(view, section, name, &content)
}

fn list_card(view: &View, subject: Subject, rows: &Rows) -> Markup {
    let (heading, nothing) = match subject {
        Subject::Secret => (
            "Secret files",
            "No job touched a secret file in this time. Files are known from each host's catalogue: the standard places, and what you add.",
        ),
        Subject::Credential => (
            "Credentials",
            "No job used a credential in this time: metadata services, agents, credential helpers, keys in the environment.",
        ),
        Subject::Destination => ("Destinations", "No job connected to anything in this time."),
    };
    let note = if rows.more { "The most frequent of them; filter to see others." } else { "" };
    let content = html! {
        @if rows.rows.is_empty() { (empty(&html! { (nothing) })) } @else { (table(view, subject, rows)) }
    };
    card(heading, &html! { (note) }, &content)
}

/// Rows of one subject, each with its own page.
pub(in crate::web) fn table(view: &View, subject: Subject, rows: &Rows) -> Markup {
    let measure = |row: &AggregateRow| if subject.has_bytes() { row.bytes_out } else { row.events };
    let greatest = rows.rows.iter().map(measure).max().unwrap_or_default();
    html! {
        table.cards {
            thead { tr {
                th { "Name" }
                th.num { "Jobs" }
                th.num { "Events" }
                @if subject.has_bytes() { th.num { "Sent" } }
                th { "" }
                @if subject.has_bytes() { th.num { "Received" } }
                th { "First (" (view.zone.name()) ")" }
                th { "Last" }
            } }
            tbody { @for row in &rows.rows {
                @let name = row.values.first().map_or("", String::as_str);
                tr {
                    th scope="row" { (named(subject.page(), name)) " " @if rows.new.contains(name) { (badge(Tone::New, "new")) } }
                    td.num data-label="Jobs" { (number(row.jobs)) }
                    td.num data-label="Times" { (number(row.events)) }
                    @if subject.has_bytes() { td.num data-label="Sent" { (bytes(row.bytes_out)) } }
                    td.graph { (chart::share(measure(row), greatest)) }
                    @if subject.has_bytes() { td.num data-label="Received" { (bytes(row.bytes_in)) } }
                    td.fit data-label="First" { (view.zone.time(row.first.as_ref())) }
                    td.fit data-label="Last" { (view.zone.time(row.last.as_ref())) }
                }
            } }
        }
    }
}

/// One secret, credential or destination.
pub(in crate::web) struct One<'a> {
    pub(in crate::web) subject: Subject,
    pub(in crate::web) name: &'a str,
    pub(in crate::web) span: &'a str,
    /// All of it, over the span.
    pub(in crate::web) total: Option<AggregateRow>,
    /// By repository and workflow.
    pub(in crate::web) workflows: Vec<AggregateRow>,
    pub(in crate::web) actors: Vec<AggregateRow>,
    pub(in crate::web) programs: Vec<AggregateRow>,
    pub(in crate::web) over_time: Vec<Bar>,
    pub(in crate::web) axis: Vec<String>,
    pub(in crate::web) recent: Vec<AuditEvent>,
    /// Its first time ever is within the last 24 hours.
    pub(in crate::web) new: bool,
}

pub(in crate::web) fn one(view: &View, one: &One<'_>) -> Response {
    let (list, list_name) = one.subject.list();
    let heading = html! { (whole(one.name)) " " @if one.new { (badge(Tone::New, "new")) } };
    let words = condition(one.subject.field().name(), one.name);
    let content = html! {
        (title_below(list, list_name, &heading, &html! { (one.subject.one()) }))
        div.actions { (spans(view, one.span)) a.button href=(search_for(&words)) { "Search its events" } }
        @match &one.total {
            None => (notice(Tone::Plain, &html! { strong { "Nothing in this time" } span { "No event in what you may see names it. Choose a longer time." } })),
            Some(total) => {
                (numbers(view, one.subject, total))
                section.card { header { h2 { "Over time" } } (chart::bars("Events", &one.axis, &one.over_time)) }
                (by(view, one, "Who", &["Repository", "Workflow"], &one.workflows, &[Field::Repo, Field::Workflow]))
                div.two {
                    (by(view, one, "Triggered by", &["Actor"], &one.actors, &[Field::Actor]))
                    (by(view, one, "With which programs", &["Program"], &one.programs, &[Field::Exe]))
                }
                (card("Latest events", &html! {}, &events::table(view, &one.recent, Around::Anywhere)))
            }
        }
    };
    page(view, one.subject.section(), one.name, &content)
}

fn numbers(view: &View, subject: Subject, total: &AggregateRow) -> Markup {
    let stat = |label: &str, value: Markup, note: Markup| {
        html! { div.stat { span.label { (label) } span.value { (value) } span.note { (note) } } }
    };
    html! {
        div.stats {
            (stat("Jobs", html! { (number(total.jobs)) }, html! { (counted(total.events, "event")) }))
            @if subject.has_bytes() { (stat("Sent", html! { (bytes(total.bytes_out)) }, html! { (bytes(total.bytes_in)) " received" })) }
            (stat("First", html! { (view.zone.axis(total.first.as_ref().unwrap_or(&buildtrail_proto::Timestamp::default()), true)) }, view.zone.full(total.first.as_ref())))
            (stat("Last", html! { (view.zone.axis(total.last.as_ref().unwrap_or(&buildtrail_proto::Timestamp::default()), true)) }, view.zone.full(total.last.as_ref())))
        }
    }
}

fn by(
    view: &View,
    one: &One<'_>,
    heading: &str,
    columns: &[&str],
    rows: &[AggregateRow],
    fields: &[Field],
) -> Markup {
    let subject = condition(one.subject.field().name(), one.name);
    let content = html! {
        table.cards {
            thead { tr { @for column in columns { th { (column) } } th.num { "Jobs" } th.num { "Times" } th { "Last" } } }
            tbody { @for row in rows {
                tr {
                    @for (index, column) in columns.iter().enumerate() {
                        @let value = row.values.get(index).map_or("", String::as_str);
                        td data-label=(column) {
                            @if index == 0 { a href=(search_for(&narrowed(&subject, fields, &row.values))) { (shown(value)) } } @else { (shown(value)) }
                        }
                    }
                    td.num data-label="Jobs" { (number(row.jobs)) }
                    td.num data-label="Times" { (number(row.events)) }
                    td.fit data-label="Last" { (view.zone.time(row.last.as_ref())) }
                }
            } }
        }
    };
    card(heading, &html! {}, &content)
}

fn shown(value: &str) -> Markup {
    html! { @if value.is_empty() { span.none { "(none)" } } @else { (crate::web::text::short(value)) } }
}

/// The search for one row's events.
pub(in crate::web) fn narrowed(words: &str, fields: &[Field], values: &[String]) -> String {
    let mut all = words.to_owned();
    for (field, value) in fields.iter().zip(values) {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(&condition(field.name(), value));
    }
    all
}
