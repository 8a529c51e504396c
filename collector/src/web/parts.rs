//! Pieces that several pages are made of.

use buildtrail_query::ParseError;
use maud::{Markup, html};

use super::{
    layout::View,
    link::to,
    text::{is_linkable, number, short, whole},
};

/// How a badge looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    New,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::New => "new",
        }
    }
}

pub(super) fn badge(tone: Tone, words: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (words) } }
}

/// A message on a page of its own weight.
pub(super) fn notice(tone: Tone, content: &Markup) -> Markup {
    html! { div class={ "notice " (tone.class()) } role="status" { (content) } }
}

/// A box with a heading.
pub(super) fn card(heading: &str, note: &Markup, content: &Markup) -> Markup {
    html! { section.card { header { h2 { (heading) } p { (note) } } (content) } }
}

/// What stands where a list is empty.
pub(super) fn empty(words: &Markup) -> Markup {
    html! { p.empty { (words) } }
}

/// One number of the overview.
pub(super) struct Stat<'a> {
    pub(super) label: &'a str,
    pub(super) value: u64,
    pub(super) note: String,
    pub(super) link: String,
    /// Something that needs a look when it is not zero.
    pub(super) alarming: bool,
}

pub(super) fn stat(stat: &Stat<'_>) -> Markup {
    html! {
        a.stat.bad[stat.alarming && stat.value > 0] href=(stat.link) {
            span.label { (stat.label) }
            span.value { (number(stat.value)) }
            span.note { (stat.note) }
        }
    }
}

/// Spans of time that lists offer: the parameter's value and what it is called.
pub(super) const SPANS: [(&str, &str); 5] =
    [("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days"), ("all", "All time")];

/// Links to the same list over other spans of time.
pub(super) fn spans(view: &View, chosen: &str) -> Markup {
    html! {
        nav.segments aria-label="Time span" {
            @for (value, name) in SPANS {
                a href=(view.address.changed("span", value)) aria-current=[(value == chosen).then_some("true")] { (name) }
            }
        }
    }
}

/// The field for a search, above a list.
pub(super) struct Ask<'a> {
    /// Where it is sent.
    pub(super) action: &'a str,
    /// What was asked.
    pub(super) text: &'a str,
    pub(super) error: Option<&'a ParseError>,
    /// What the button says.
    pub(super) button: &'a str,
    pub(super) example: &'a str,
}

pub(super) fn ask(view: &View, ask: &Ask<'_>, more: &Markup) -> Markup {
    html! {
        form.ask method="get" action=(ask.action) role="search" {
            div.line {
                input.where type="search" name="where" value=(ask.text) placeholder=(ask.example) aria-label="Search" autocomplete="off" autocapitalize="off" spellcheck="false" aria-invalid=[ask.error.map(|_| "true")];
                button.primary type="submit" { (ask.button) }
            }
            @for (name, value) in view.address.others(&["where", "cursor", "tz", "by", "over"]) { input type="hidden" name=(name) value=(value); }
            div.more { (more) }
        }
        @if let Some(error) = ask.error { (mistake(ask.text, error)) }
    }
}

/// What is wrong with a search, with a mark below the place.
fn mistake(text: &str, error: &ParseError) -> Markup {
    const BEFORE: usize = 40;
    let start = error.column.saturating_sub(1).saturating_sub(BEFORE);
    let around: String = text.chars().skip(start).take(2 * BEFORE).map(plain).collect();
    let mark = " ".repeat(error.column.saturating_sub(1).saturating_sub(start));
    html! {
        div.notice.bad role="alert" {
            strong { "This search was not understood" }
            pre { (around) "\n" (mark) "^" }
            span { (whole(&error.message)) }
        }
    }
}

/// One column for one character.
fn plain(character: char) -> char {
    if character.is_ascii_graphic() || character.is_alphanumeric() { character } else { ' ' }
}

/// A value that has a page of its own.
pub(super) fn named(page: &str, name: &str) -> Markup {
    html! {
        @if is_linkable(name) { a href=(to(page).with("name", name)) { (short(name)) } } @else { (short(name)) }
    }
}

/// Link to the next page of a list.
pub(super) fn pages(view: &View, cursor: &str, words: &str) -> Markup {
    html! {
        @if !cursor.is_empty() || !view.address.get("cursor").is_empty() {
            nav.pages aria-label="Pages" {
                @if !view.address.get("cursor").is_empty() { a rel="first" href=(view.address.changed("cursor", "")) { "← First page" } }
                @if !cursor.is_empty() { a rel="next" href=(view.address.changed("cursor", cursor)) { (words) " →" } }
            }
        }
    }
}
