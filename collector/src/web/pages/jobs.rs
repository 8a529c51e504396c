//! Jobs, newest first.

use axum::response::Response;
use buildtrail_proto::v1::{JobSummary, ListJobsResponse};
use buildtrail_query::ParseError;
use buildtrail_words::time;
use maud::{Markup, html};

use super::events::job_id;
use crate::web::{
    layout::{Section, View, page, title},
    parts::{Ask, Tone, ask, badge, empty, pages, spans},
    text::{bytes, counted, number, short},
};

/// What the page shows.
pub(in crate::web) struct Jobs<'a> {
    pub(in crate::web) text: &'a str,
    pub(in crate::web) span: &'a str,
    pub(in crate::web) answer: Result<ListJobsResponse, ParseError>,
}

pub(in crate::web) fn show(view: &View, jobs: &Jobs<'_>) -> Response {
    let question = Ask {
        action: "/jobs",
        text: jobs.text,
        error: jobs.answer.as_ref().err(),
        button: "Filter jobs",
        example: "repo=acme/* secret~aws actor=octavia",
    };
    let content = html! {
        (title(&html! { "Jobs" }, &html! { "What ran on your build hosts, newest first. A filter keeps the jobs in which something matches." }))
        (ask(view, &question, &spans(view, jobs.span)))
        @if let Ok(answer) = &jobs.answer {
            section.card {
                @if answer.jobs.is_empty() { (nothing(jobs)) } @else { (table(view, &answer.jobs)) }
                (pages(view, &answer.next_cursor, "Older jobs"))
            }
        }
    };
    page(view, Section::Jobs, "Jobs", &content)
}

fn nothing(jobs: &Jobs<'_>) -> Markup {
    empty(&html! {
        @if jobs.text.is_empty() && jobs.span == "all" {
            "No job has been seen yet. Jobs appear here as soon as an enrolled host runs one: "
            code { "buildtrail enrol create" } " makes a token for a host."
        } @else { "No job matches. Choose a longer time, or take a condition away." }
    })
}

/// Jobs as rows.
pub(in crate::web) fn table(view: &View, jobs: &[JobSummary]) -> Markup {
    html! {
        table.cards {
            thead { tr {
                th { "Job" }
                th { "Started (" (view.zone.name()) ")" }
                th { "Branch, who" }
                th.num { "Secrets" }
                th.num { "Credentials" }
                th.num { "Connections" }
                th.num { "Sent" }
                th.num { "Took" }
                th { "State" }
            } }
            tbody { @for summary in jobs { (row(view, summary)) } }
        }
    }
}

fn row(view: &View, summary: &JobSummary) -> Markup {
    let job = summary.job.clone().unwrap_or_default();
    html! {
        tr {
            th scope="row" {
                a href={ "/jobs/" (job_id(&job.job_id)) } { @if job.repository.is_empty() { "(no repository)" } @else { (short(&job.repository)) } }
                span.sub { (short(&job.workflow)) @if !job.name.is_empty() { " · " (short(&job.name)) } }
            }
            td.fit data-label="Started" { (view.zone.time(summary.first_event.as_ref())) }
            td data-label="Branch, who" { (short(branch(&job.r#ref))) span.sub { (short(&job.actor)) @if !job.trigger.is_empty() { " · " (short(&job.trigger)) } } }
            td.num data-label="Secrets" { (number(count(summary, "secret.access"))) }
            td.num data-label="Credentials" { (number(count(summary, "credential.use"))) }
            td.num data-label="Connections" { (number(count(summary, "connection.opened"))) }
            td.num data-label="Sent" { (bytes(summary.bytes_out)) }
            td.num data-label="Took" { (time::took(summary.first_event.as_ref(), summary.last_event.as_ref())) }
            td.fit data-label="State" { (state(summary)) }
        }
    }
}

/// Finished or not, and what was lost.
pub(in crate::web) fn state(summary: &JobSummary) -> Markup {
    let lost = count(summary, "loss");
    html! {
        @if summary.finished { (badge(Tone::Good, "finished")) } @else { (badge(Tone::Plain, "no end yet")) }
        @if lost > 0 { " " (badge(Tone::Bad, &counted(lost, "loss"))) }
    }
}

pub(in crate::web) fn count(summary: &JobSummary, kind: &str) -> u64 {
    summary.counts.get(kind).copied().unwrap_or_default()
}

/// `main` of `refs/heads/main`.
pub(in crate::web) fn branch(reference: &str) -> &str {
    reference.strip_prefix("refs/heads/").or_else(|| reference.strip_prefix("refs/")).unwrap_or(reference)
}
