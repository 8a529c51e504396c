//! Events as they arrive. Without script: the latest ones, and a link to look again.

use axum::response::Response;
use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::ParseError;
use maud::html;

use super::events::{self, Around};
use crate::web::{
    layout::{Section, View, page, title},
    link::to,
    parts::{Ask, ask},
};

/// What the page shows.
pub(in crate::web) struct Tail<'a> {
    pub(in crate::web) text: &'a str,
    /// The latest that match, newest first.
    pub(in crate::web) answer: Result<Vec<AuditEvent>, ParseError>,
}

pub(in crate::web) fn show(view: &View, tail: &Tail<'_>) -> Response {
    let question = Ask {
        action: "/tail",
        text: tail.text,
        error: tail.answer.as_ref().err(),
        button: "Watch",
        example: "kind=secret.access,credential.use repo=acme/*",
    };
    let again = to("/tail").with("where", tail.text);
    let stream = to("/tail/events").with("where", tail.text).with("tz", view.zone.name());
    let content = html! {
        (title(&html! { "Live tail" }, &html! { "Events as they arrive, newest on top." }))
        (ask(view, &question, &html! {}))
        @if let Ok(events) = &tail.answer {
            section.card {
                header {
                    span #live.live role="status" { "Not live: this page needs script for that" }
                    a href=(again) { "Look again" }
                    button #pause.end type="button" hidden { "Pause" }
                }
                div data-tail=(stream) { (events::table(view, events, Around::Anywhere)) }
                p #quiet.empty hidden[!events.is_empty()] { "Nothing matches yet. Events appear here within a second." }
            }
        }
    };
    page(view, Section::Tail, "Live tail", &content)
}
