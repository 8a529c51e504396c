//! One event, all of it.

use axum::response::Response;
use buildtrail_proto::v1::AuditEvent;
use buildtrail_words::describe;
use maud::{Markup, html};

use super::{
    events::{job_id, kind, step},
    job::host_id,
};
use crate::web::{
    layout::{Section, View, page, search_for, title_below},
    parts::card,
    text::{number, sentence, short, whole},
};

/// Of the event's text as JSON.
const MAX_JSON_LINES: usize = 400;

pub(in crate::web) fn show(view: &View, event: &AuditEvent) -> Response {
    let words = describe::what(event);
    let content = html! {
        (title_below("/search", "Search", &html! { (kind(event.kind())) }, &html! { (sentence(&words)) }))
        section.card { div.body { dl.facts { (facts(view, event)) } } }
        (card("As the host signed it", &html! { "Every field; text of jobs is written with what is invisible made visible." }, &html! { div.body { pre.note { (json(event)) } } }))
    };
    page(view, Section::Search, event.kind(), &content)
}

fn facts(view: &View, event: &AuditEvent) -> Markup {
    let field = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    html! {
        (field("Time", view.zone.full(event.time.as_ref())))
        @if let Some(job) = &event.job {
            (field("Job", html! { a href={ "/jobs/" (job_id(&job.job_id)) } { (short(&job.repository)) } " " (short(&job.workflow)) }))
            (field("Step", step(event.step.as_ref(), event.text_escaped)))
        } @else { (field("Job", html! { span.none { "outside jobs" } })) }
        @if let Some(process) = &event.process {
            (field("Process", html! { span.mono { (whole(&process.executable).escaped(event.text_escaped)) } }))
            (field("Number, parent, user", html! { (process.pid) ", " (process.parent_pid) ", " (process.uid) }))
        }
        (field("Host", html! { a href={ "/hosts/" (host_id(&event.host_id)) } { (short(&event.host_id)) } }))
        (field("Boot", html! { span.mono { (short(&event.boot_id)) } }))
        (field("Number in that boot", html! { (number(event.sequence)) }))
        (field("Alike", html! { a href=(search_for(&format!("kind={}", event.kind()))) { "Events of this kind" } }))
    }
}

fn json(event: &AuditEvent) -> Markup {
    let text = serde_json::to_string_pretty(event).unwrap_or_default();
    html! {
        // JSON has escaped control characters and backslashes already.
        @for line in text.lines().take(MAX_JSON_LINES) { (whole(line).escaped(true)) "\n" }
        @if text.lines().count() > MAX_JSON_LINES { "…\n" }
    }
}
