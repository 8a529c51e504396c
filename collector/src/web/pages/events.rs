//! Events as rows.

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, Step},
};
use buildtrail_words::{describe, time};
use maud::{Markup, html};

use crate::web::{
    layout::View,
    link::to,
    parts::{Tone, badge},
    text::{sentence, short},
};

/// What a row tells besides time, kind and what happened.
#[derive(Clone, Copy)]
pub(in crate::web) enum Around<'a> {
    /// Events of many jobs.
    Anywhere,
    /// Events of one step, with the time since the job's start.
    Step(Option<&'a Timestamp>),
}

/// Events, in the order in which they are given.
pub(in crate::web) fn table(view: &View, events: &[AuditEvent], around: Around<'_>) -> Markup {
    html! {
        table.cards {
            thead { tr {
                th { @if let Around::Anywhere = around { "Time (" (view.zone.name()) ")" } @else { "Since start" } }
                th { "Kind" }
                @if let Around::Anywhere = around { th { "Job" } th { "Process" } th { "What" } }
                @else { th { "Process" } th { "What" } }
            } }
            tbody { @for event in events { (row(view, event, around)) } }
        }
    }
}

fn row(view: &View, event: &AuditEvent, around: Around<'_>) -> Markup {
    html! {
        tr id={ "e" (event.sequence) } {
            td.fit data-label="Time" {
                a href=(address(event)) {
                    @match around {
                        Around::Anywhere => (view.zone.exact(event.time.as_ref())),
                        Around::Step(start) => (time::since(start, event.time.as_ref())),
                    }
                }
            }
            td.fit data-label="Kind" { (kind(event.kind())) }
            @if let Around::Anywhere = around { td data-label="Job" { (job(event)) } }
            td.proc data-label="Process" { (process(event)) }
            td data-label="What" { (sentence(&describe::what(event))) }
        }
    }
}

/// The address of one event.
pub(in crate::web) fn address(event: &AuditEvent) -> String {
    to("/event")
        .with("host", &event.host_id)
        .with("boot", &event.boot_id)
        .with("number", &event.sequence.to_string())
        .with("at", &event.time.as_ref().map(unix_nanos).unwrap_or_default().to_string())
        .to_string()
}

/// The kind, marked where it deserves a look.
pub(in crate::web) fn kind(kind: &str) -> Markup {
    let tone = match kind {
        "memory.access" | "escape" | "loss" => Tone::Bad,
        "secret.access" | "credential.use" | "socket.opened" => Tone::Warn,
        kind if kind.starts_with("identity.s") || kind.starts_with("contamination") => Tone::Bad,
        _ => Tone::Plain,
    };
    badge(tone, kind)
}

fn process(event: &AuditEvent) -> Markup {
    html! { span.mono { (sentence(&describe::process(event, false))) } }
}

fn job(event: &AuditEvent) -> Markup {
    let Some(job) = &event.job else { return html! { span.none { "outside jobs" } } };
    html! {
        a href={ "/jobs/" (job_id(&job.job_id)) } { (short(&job.repository)) }
        span.sub { (short(&job.name)) @if event.step.is_some() { " · " (step(event.step.as_ref(), event.text_escaped)) } }
    }
}

/// `2 Build the crate`.
pub(in crate::web) fn step(step: Option<&Step>, escaped: bool) -> Markup {
    html! { (sentence(&describe::step(step, escaped))) }
}

/// A job's id as part of an address: other characters than letters and digits cannot be in one.
pub(in crate::web) fn job_id(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}
