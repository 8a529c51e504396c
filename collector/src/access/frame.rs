//! Pieces of the pages of this folder.

use axum::{http::StatusCode, response::Response};
use maud::{Markup, html};

use super::Person;
use crate::web;

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
    web::framed(status, person, title, content)
}

pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}
