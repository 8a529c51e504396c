//! What the keys do and how to search, as a page.

use axum::response::Response;
use buildtrail_query::Field;
use maud::html;

use crate::web::{
    layout::{Section, View, key_list, page, search_for, title},
    parts::card,
};

const EXAMPLES: [(&str, &str); 7] = [
    ("repo=acme/* kind=secret.access since=24h", "secrets that jobs of acme read since yesterday"),
    ("secret~aws dest!=*.amazonaws.com", "events with an AWS secret that are not about Amazon's hosts"),
    ("dest=203.0.113.0/24 port>=1024", "connections to a network, to high ports"),
    ("workflow=release actor!=octavia", "release runs that somebody else triggered"),
    ("kind=memory.access,escape", "attempts on other processes, and ways out of the job"),
    ("exe=*/curl \"api.example.com\"", "curl, where this text stands anywhere in the event"),
    ("outcome=refused since=2h", "connections that were refused in the last two hours"),
];

pub(in crate::web) fn show(view: &View) -> Response {
    let content = html! {
        (title(&html! { "Help" }, &html! { "How to search, and which keys do what." }))
        (card("Searching", &html! { "The same words work here, in the command line (" code { "buildtrail events --where" } ") and in the API." }, &html! {
            div.body { p { "A search is a list of conditions that must all hold: a field, an operator and a value. Several values with commas: any of them. Other words are looked for in all texts of an event." } }
            table.compact.cards {
                thead { tr { th { "Operator" } th { "Means" } } }
                tbody {
                    @for (operator, means) in [
                        ("field=value", "is; * stands for any text, ? for one character"),
                        ("field!=value", "is not"),
                        ("field~text", "contains the text, in any case"),
                        ("field>=number  field<=number", "at least, at most"),
                        ("since=2h  until=2026-11-22T10:00Z", "time: how long ago, or when"),
                    ] { tr { td.fit data-label="Operator" { code { (operator) } } td data-label="Means" { (means) } } }
                }
            }
        }))
        (card("Examples", &html! {}, &html! {
            table.compact.cards {
                thead { tr { th { "Search" } th { "Finds" } } }
                tbody { @for (text, finds) in EXAMPLES { tr { td data-label="Search" { a.mono href=(search_for(text)) { (text) } } td data-label="Finds" { (finds) } } } }
            }
        }))
        (card("Fields", &html! {}, &html! {
            table.compact.cards {
                thead { tr { th { "Field" } th { "What it is" } } }
                tbody { @for field in Field::ALL { tr { td.fit data-label="Field" { code { (field.name()) } } td data-label="What it is" { (field.description()) } } } }
            }
        }))
        (card("Keys", &html! {}, &html! { div.body { (key_list()) } }))
    };
    page(view, Section::Other, "Help", &content)
}
