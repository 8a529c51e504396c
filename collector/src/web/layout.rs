//! The frame around every page: navigation, who is signed in and what they may see, the time zone, shortcuts.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{
    assets,
    link::{Address, to},
    text::{short, whole},
    zone::{OFFERED, Zone},
};

/// The parts of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Jobs,
    Secrets,
    Destinations,
    Hosts,
    Integrity,
    Search,
    Tail,
    /// None of the others: errors, help, the account.
    Other,
}

/// Section, its address, what it is called, and the key that goes there after `g`.
const SECTIONS: [(Section, &str, &str, &str); 8] = [
    (Section::Overview, "/", "Overview", "o"),
    (Section::Jobs, "/jobs", "Jobs", "j"),
    (Section::Secrets, "/secrets", "Secrets", "s"),
    (Section::Destinations, "/destinations", "Destinations", "d"),
    (Section::Hosts, "/hosts", "Hosts", "h"),
    (Section::Integrity, "/integrity", "Integrity", "i"),
    (Section::Search, "/search", "Search", "e"),
    (Section::Tail, "/tail", "Live tail", "t"),
];

const BREAK_GLASS: &str =
    "You are a local administrator. This account is for emergencies; its use is in the log.";

/// Who looks at a page, as the page shows it.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    /// What they may see, in words.
    pub(crate) scope: String,
    /// They may see all of it.
    pub(crate) everything: bool,
    /// Goes into every form that changes something; absent where no session is.
    pub(crate) csrf: Option<String>,
    /// Sections that their role or scope does not open.
    pub(crate) closed: Vec<Section>,
    /// A local administrator, who is for emergencies: every page says so.
    pub(crate) is_break_glass: bool,
}

/// What every page needs: who looks, from where, in which time zone.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) visitor: Option<Visitor>,
    pub(crate) zone: Zone,
    pub(crate) address: Address,
}

/// A page in its frame.
pub(crate) fn page(view: &View, section: Section, title: &str, content: &Markup) -> Response {
    respond(StatusCode::OK, &document(view, section, title, content))
}

/// As [`page`], with another status.
pub(crate) fn page_with(
    status: StatusCode,
    view: &View,
    section: Section,
    title: &str,
    content: &Markup,
) -> Response {
    respond(status, &document(view, section, title, content))
}

fn respond(status: StatusCode, document: &Markup) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, document.0.clone()).into_response()
}

fn document(view: &View, section: Section, title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (short(title).plain()) " · Buildtrail" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(assets::style());
                script src=(assets::script()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                div.frame {
                    (side(view, section))
                    div.stage {
                        @if view.visitor.as_ref().is_some_and(|visitor| visitor.is_break_glass) {
                            div class="notice warn" role="status" { (BREAK_GLASS) }
                        }
                        main #main tabindex="-1" { (content) }
                        (foot(view))
                    }
                }
                (keys())
            }
        }
    }
}

fn side(view: &View, section: Section) -> Markup {
    html! {
        header.side {
            a.brand href="/" {
                svg viewBox="0 0 24 24" aria-hidden="true" { path d="M4 18h5l3-12 4 16 3-9h2" {} }
                "Buildtrail"
            }
            @if let Some(visitor) = &view.visitor {
                nav aria-label="Main" {
                    ul {
                        @for (place, address, name, _) in SECTIONS.into_iter().filter(|(place, ..)| !visitor.closed.contains(place)) {
                            li { a href=(address) aria-current=[(place == section).then_some("page")] { (name) } }
                        }
                    }
                }
                (who(visitor))
            }
        }
    }
}

fn who(visitor: &Visitor) -> Markup {
    html! {
        div.who {
            div {
                a href="/account" { strong { (short(&visitor.name)) } }
                span.muted { (visitor.role) }
            }
            div.scope {
                @if visitor.everything { span.muted { "You see everything" } }
                @else { span.badge.warn title="Pages, counts and searches hold only these repositories" { "Scope" } " " (whole(&visitor.scope)) }
            }
            @if let Some(csrf) = &visitor.csrf {
                form method="post" action="/logout" {
                    input type="hidden" name="csrf" value=(csrf);
                    button.plain type="submit" { "Sign out" }
                }
            }
        }
    }
}

fn foot(view: &View) -> Markup {
    html! {
        footer.foot {
            form method="get" action=(view.address.path()) {
                @for (name, value) in view.address.others(&["tz"]) { input type="hidden" name=(name) value=(value); }
                label for="tz" { "Times in" }
                input #tz name="tz" list="zones" value=(view.zone.name()) autocomplete="off" spellcheck="false";
                datalist #zones { @for name in OFFERED { option value=(name) {} } }
                button type="submit" { "Change" }
            }
            a.keys href="/help" { "Keyboard shortcuts" " " kbd { "?" } }
        }
    }
}

/// What each key does; a dialog where there is script, a page where there is none.
pub(super) fn key_list() -> Markup {
    html! {
        dl.keylist {
            dt { kbd { "/" } } dd { "Go to the search field" }
            dt { kbd { "j" } " " kbd { "k" } } dd { "Next row, row before; " kbd { "Enter" } " opens it" }
            dt { kbd { "n" } } dd { "Next page of a list" }
            @for (_, _, name, key) in SECTIONS { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } }
            dt { kbd { "?" } } dd { "This list" }
            dt { kbd { "Esc" } } dd { "Leave a field, close this list" }
        }
    }
}

fn keys() -> Markup {
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keyboard shortcuts" }
            (key_list())
            form method="dialog" { button type="submit" { "Close" } }
        }
    }
}

/// A page's head: where it stands, what it is, one sentence.
pub(super) fn title(title: &Markup, sentence: &Markup) -> Markup {
    html! { div.title { h1 { (title) } p { (sentence) } } }
}

/// The same below another page.
pub(super) fn title_below(parent: &str, parent_name: &str, title: &Markup, sentence: &Markup) -> Markup {
    html! {
        div.title {
            a.crumb href=(parent) { "← " (parent_name) }
            h1 { (title) }
            p { (sentence) }
        }
    }
}

/// Address of the search page for some words of the search language.
pub(super) fn search_for(words: &str) -> String {
    to("/search").with("where", words).to_string()
}
