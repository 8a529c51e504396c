//! Whether the log can be believed: checkpoints, witnesses, the last verification.

use axum::response::Response;
use buildtrail_proto::v1::{GetCheckpointResponse, RecordedAct};
use maud::{Markup, html};

use super::overview::act_row;
use crate::{
    query::Verified,
    web::{
        layout::{Section, View, page, title},
        parts::{Tone, badge, card, empty},
        text::{counted, number, short, whole},
    },
};

/// What the page shows.
pub(in crate::web) struct Integrity {
    pub(in crate::web) checkpoint: GetCheckpointResponse,
    /// Size of the tree that the newest checkpoint signs, and of the newest that enough witnesses cosigned.
    pub(in crate::web) sizes: (u64, Option<u64>),
    /// Of the log, since the collector started.
    pub(in crate::web) last: Option<Verified>,
    /// What endangers or changes the log: damage, removals, forks, clones, witnesses, a full disk.
    pub(in crate::web) events: Vec<RecordedAct>,
    pub(in crate::web) may_verify: bool,
}

pub(in crate::web) fn show(view: &View, shown: &Integrity) -> Response {
    let content = html! {
        (title(&html! { "Integrity" }, &html! { "The log is append-only, and every few seconds the collector signs all of it. Whoever keeps a checkpoint can prove later whether anything was changed." }))
        (verify(view, shown))
        (checkpoint(shown))
        (witnesses(shown))
        (card("What happened to the log", &html! { "Damage, removals by retention, forked or cloned hosts, missing witnesses, full disks." }, &acts(view, &shown.events, &html! { (badge(Tone::Good, "quiet")) " Nothing." })))
    };
    page(view, Section::Integrity, "Integrity", &content)
}

fn acts(view: &View, acts: &[RecordedAct], none: &Markup) -> Markup {
    html! {
        @if acts.is_empty() { (empty(none)) }
        @else { table.cards {
            thead { tr { th { "Time (" (view.zone.name()) ")" } th { "What kind" } th { "What" } } }
            tbody { @for act in acts { (act_row(view, act)) } }
        } }
    }
}

fn verify(view: &View, shown: &Integrity) -> Markup {
    let csrf = view.visitor.as_ref().and_then(|visitor| visitor.csrf.as_ref()).filter(|_| shown.may_verify);
    html! {
        (card("Verification", &html! { "Every batch of every host is read again: signatures, chains, numbers, and the tree." }, &html! {
            (last(view, shown.last.as_ref()))
            div.body {
                @if let Some(csrf) = csrf {
                    form.actions method="post" action="/integrity/verify" {
                        input type="hidden" name="csrf" value=(csrf);
                        button.primary type="submit" { "Verify the log now" }
                        span.hint { "Reads the whole log; a large one takes minutes." }
                    }
                }
                p.hint { "A collector that lies would also lie here. From your own machine: " code { "buildtrail verify" } " downloads the log and believes nothing but its key." }
            }
        }))
    }
}

fn last(view: &View, last: Option<&Verified>) -> Markup {
    let Some(last) = last else {
        return empty(&html! { "Nobody has verified the log here since the collector started." });
    };
    let (tone, word) = match (last.problems, last.complete) {
        (0, true) => (Tone::Good, "intact and complete"),
        (0, false) => (Tone::Warn, "intact, not complete"),
        _ => (Tone::Bad, "not intact"),
    };
    html! {
        div.body {
            (badge(tone, word)) " " (view.zone.full(Some(&last.time))) ", by " (short(&last.by)) ": "
            (counted(last.batches, "batch")) " with " (counted(last.events, "event")) " of " (counted(last.hosts, "host"))
            @if last.problems > 0 { ", " (counted(last.problems, "problem")) }
            "."
        }
    }
}

fn checkpoint(shown: &Integrity) -> Markup {
    let (size, witnessed) = shown.sizes;
    card(
        "Newest checkpoint",
        &html! { "Over " (number(size)) " records." },
        &html! {
            div.body {
                pre.note { @for line in shown.checkpoint.checkpoint.lines() { (whole(line)) "\n" } }
                p.hint { "The log's key: " span.mono { (whole(&shown.checkpoint.log_key)) } }
                @if let Some(witnessed) = witnessed { p.hint { "Enough witnesses cosigned the first " (number(witnessed)) " records." } }
            }
        },
    )
}

fn witnesses(shown: &Integrity) -> Markup {
    card(
        "Witnesses",
        &html! { "Others who cosign checkpoints, so that the collector cannot show different people different logs." },
        &html! {
            @if shown.checkpoint.witnesses.is_empty() {
                (empty(&html! { "None are set. " code { "tree.policy" } " in the collector's settings names them." }))
            } @else { div.body { ul { @for statement in &shown.checkpoint.witnesses { li { (short(statement)) } } } } }
        },
    )
}
