//! When a page cannot be shown: what happened, and what to do.

use axum::{http::StatusCode, response::Response};
use maud::{Markup, html};

use crate::web::{
    layout::{Section, View, page_with, title},
    parts::{Tone, notice},
    text::whole,
};

/// The page of an error. `detail` says what exactly, for people.
pub(crate) fn page(view: &View, status: StatusCode, detail: &str) -> Response {
    let (heading, todo) = words(status);
    let content = html! {
        (title(&html! { (heading) }, &html! { "Error " (status.as_u16()) }))
        @if !detail.is_empty() { (notice(Tone::Bad, &html! { span { (whole(detail)) } })) }
        (todo)
        p.actions { a.button href="/" { "To the overview" } a.button href="/search" { "Search events" } }
    };
    page_with(status, view, Section::Other, heading, &content)
}

fn words(status: StatusCode) -> (&'static str, Markup) {
    match status {
        StatusCode::BAD_REQUEST => {
            ("This cannot be asked", html! { p { "Go back, correct what is named above, and try again." } })
        }
        StatusCode::FORBIDDEN => (
            "You may not do this",
            html! { p { "Your role does not allow it. An administrator can give you another role or scope; your own is shown beside the navigation and on " a href="/account" { "your account" } "." } },
        ),
        StatusCode::NOT_FOUND => (
            "There is nothing here",
            html! { p { "The address may be mistyped, what it named may have been removed by retention, or it lies outside of what you may see. If somebody sent you this link, ask them which job, host or secret it was about, and search for that." } },
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            "Too much at once",
            html! { p { "Wait a few seconds, then reload the page. Live tails, exports and verifications have few places: close those that you do not need." } },
        ),
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => (
            "The question took too long",
            html! { p { "Ask about a shorter time, or name a repository, a host or a job. An administrator can raise " code { "limits.query_seconds" } " in the collector's settings." } },
        ),
        _ => (
            "The collector could not answer",
            html! { p { "This is the collector's fault, not yours. Try again in a minute; if it stays so, give an administrator the time of day: the collector's own log says more. Nothing that was received is lost." } },
        ),
    }
}
