//! The frame around the pages of this folder: plain, and good without a style.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::Person;

/// How a message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Good,
    Bad,
}

pub(super) fn message(kind: Message, text: &str) -> Markup {
    let class = match kind {
        Message::Good => "notice good",
        Message::Bad => "notice bad",
    };
    html! { p class=(class) role="status" { (text) } }
}

pub(super) fn page(status: StatusCode, person: Option<&Person>, title: &str, content: &Markup) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Buildtrail" }
                link rel="icon" href="data:,";
            }
            body {
                @if let Some(person) = person {
                    @if person.is_break_glass() { (message(Message::Bad, BREAK_GLASS)) }
                    @if let Some(csrf) = &person.csrf {
                        form method="post" action="/logout" {
                            input type="hidden" name="csrf" value=(csrf.as_str());
                            button { "Sign out" }
                        }
                    }
                }
                main #main { (content) }
            }
        }
    };
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], document.0).into_response()
}

/// On each page of a local administrator.
pub(crate) const BREAK_GLASS: &str =
    "You are a local administrator. This account is for emergencies; its use is in the log.";

pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"))
}
