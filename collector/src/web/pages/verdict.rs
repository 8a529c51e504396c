//! What a verification found.

use axum::response::Response;
use buildtrail_evidence::verify::{HostReport, Report};
use buildtrail_words::display;
use maud::{Markup, html};

use crate::web::{
    layout::{Section, View, page, title_below},
    parts::{Tone, badge, card, notice},
    text::{counted, number, sentence},
};

/// What was verified.
pub(in crate::web) enum Of<'a> {
    Job(&'a str),
    Log,
}

pub(in crate::web) fn show(view: &View, of: &Of<'_>, report: &Report) -> Response {
    let (section, back, name, heading) = match of {
        Of::Job(id) => (Section::Jobs, format!("/jobs/{id}"), "Back to the job", "Verification of this job"),
        Of::Log => (Section::Integrity, "/integrity".to_owned(), "Integrity", "Verification of the log"),
    };
    let content = html! {
        (title_below(&back, name, &html! { (heading) }, &html! { "From the log as it is on the collector's disk now." }))
        (verdict(report))
        (card("Found", &html! { (counted(report.batches, "intact batch")) " with " (counted(report.events, "event")) "." }, &html! {
            table.cards {
                thead { tr { th { "Host" } th { "Complete" } th.num { "Events" } th.num { "Lost" } th.num { "Withheld" } th { "Statement" } } }
                tbody { @for host in &report.hosts { (row(host)) } }
            }
        }))
        @if !report.notes.is_empty() { (card("Worth knowing", &html! {}, &html! { div.body { ul { @for note in &report.notes { li { (safe(note)) } } } } })) }
    };
    page(view, section, heading, &content)
}

fn verdict(report: &Report) -> Markup {
    let complete = report.hosts.iter().all(|host| host.complete);
    if !report.problems.is_empty() {
        return notice(
            Tone::Bad,
            &html! {
                strong { "Not intact" }
                ul { @for problem in &report.problems { li { (safe(problem)) } } }
                span { "Keep the collector's data directory as it is, and verify it from another machine: " code { "buildtrail verify" } "." }
            },
        );
    }
    if !complete {
        return notice(
            Tone::Warn,
            &html! { strong { "Intact, and not complete" } span { "What is here is as the hosts signed it. What is missing is named below." } },
        );
    }
    notice(
        Tone::Good,
        &html! { strong { "Intact and complete" } span { "Every signature, every chain, every number and every place in the signed tree is right." } },
    )
}

fn row(host: &HostReport) -> Markup {
    html! {
        tr {
            th scope="row" { (safe(&host.name)) }
            td.fit data-label="Complete" { @if host.complete { (badge(Tone::Good, "complete")) } @else { (badge(Tone::Warn, "gaps")) } }
            td.num data-label="Events" { (number(host.events)) }
            td.num data-label="Lost" { (number(host.lost)) }
            td.num data-label="Withheld" { (number(host.withheld)) }
            td data-label="Statement" { (safe(&host.statement)) }
        }
    }
}

/// Statements are printable already, apart from what they quote.
fn safe(text: &str) -> Markup {
    let text = display::safe(text, true);
    html! { (sentence(&text)) }
}
