//! Build hosts: what each can see, what it lost, whether it is there.

use axum::response::Response;
use buildtrail_proto::{
    Timestamp,
    v1::{Coverage, HostSummary, JobSummary, RecordedAct, Tier},
};
use buildtrail_words::time;
use maud::{Markup, html};

use super::{
    job::{condition, host_id},
    jobs,
    overview::act_row,
};
use crate::web::{
    layout::{Section, View, page, search_for, title, title_below},
    parts::{Tone, badge, card, empty, notice},
    text::{bytes, counted, number, short, whole},
};

/// A certificate that ends sooner deserves a look.
const SOON_SECONDS: i64 = 72 * 3600;

pub(in crate::web) fn list(view: &View, hosts: &[HostSummary], now: &Timestamp) -> Response {
    let content = html! {
        (title(&html! { "Hosts" }, &html! { "Which build hosts report, what each can see, and what it lost." }))
        section.card {
            @if hosts.is_empty() {
                (empty(&html! { "No host has reported yet. " code { "buildtrail enrol create" } " makes a join token; the host's agent does the rest." }))
            } @else {
                table.cards {
                    thead { tr { th { "Host" } th { "State" } th { "Sees" } th { "Heard" } th.num { "Lag" } th.num { "Lost" } th.num { "Waiting" } th.num { "Jobs now" } th { "Certificate ends" } } }
                    tbody { @for host in hosts { (row(view, host, now)) } }
                }
            }
        }
    };
    page(view, Section::Hosts, "Hosts", &content)
}

fn row(view: &View, host: &HostSummary, now: &Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "/hosts/" (host_id(&host.host_id)) } { (short(&host.name)) } span.sub { (short(&host.kernel_release)) } }
            td.fit data-label="State" { (state(host)) }
            td data-label="Sees" { (sees(host)) }
            td.fit data-label="Heard" { (view.zone.ago(heard(host), now)) }
            td.num data-label="Lag" { (lag(host)) }
            td.num data-label="Lost" { (lost(host)) }
            td.num data-label="Waiting" { (bytes(host.spool_bytes)) }
            td.num data-label="Jobs now" { (number(host.running_jobs.into())) }
            td.fit data-label="Certificate" { (certificate(view, host, now)) }
        }
    }
}

fn heard(host: &HostSummary) -> Option<&Timestamp> {
    host.last_heard.as_ref().or(host.last_heartbeat.as_ref()).or(host.last_event.as_ref())
}

fn state(host: &HostSummary) -> Markup {
    if host.dark { badge(Tone::Bad, "dark") } else { badge(Tone::Good, "reports") }
}

fn lag(host: &HostSummary) -> Markup {
    html! { (time::duration(i128::from(host.lag_ms) * 1_000_000)) }
}

fn lost(host: &HostSummary) -> Markup {
    if host.events_lost == 0 {
        html! { "0" }
    } else {
        badge(Tone::Bad, &number(host.events_lost))
    }
}

fn sees(host: &HostSummary) -> Markup {
    let (tone, words) = match host.tier() {
        Tier::A => (Tone::Good, "tier A"),
        Tier::B => (Tone::New, "tier B"),
        Tier::C => (Tone::Warn, "tier C"),
        Tier::None => (Tone::Bad, "nothing"),
        Tier::Unspecified => (Tone::Plain, "not said"),
    };
    html! {
        (badge(tone, words))
        @if !host.gaps.is_empty() { span.sub { (counted(host.gaps.len() as u64, "gap")) } }
    }
}

fn certificate(view: &View, host: &HostSummary, now: &Timestamp) -> Markup {
    let Some(expires) = &host.certificate_expires else { return html! { span.none { "unknown" } } };
    let left = expires.seconds - now.seconds;
    html! {
        (view.zone.time(Some(expires)))
        @if left < 0 { " " (badge(Tone::Bad, "expired")) } @else if left < SOON_SECONDS { " " (badge(Tone::Warn, "soon")) }
    }
}

/// One host.
pub(in crate::web) struct Host {
    pub(in crate::web) summary: HostSummary,
    /// What it said last about what it sees.
    pub(in crate::web) coverage: Option<Coverage>,
    pub(in crate::web) acts: Vec<RecordedAct>,
    pub(in crate::web) jobs: Vec<JobSummary>,
}

pub(in crate::web) fn one(view: &View, host: &Host, now: &Timestamp) -> Response {
    let summary = &host.summary;
    let content = html! {
        (title_below("/hosts", "Hosts", &html! { (whole(&summary.name)) " " (state(summary)) }, &html! { "Last heard " (view.zone.ago(heard(summary), now)) }))
        @if summary.dark {
            (notice(Tone::Bad, &html! { strong { "This host is silent" } span { "Look whether it runs, whether its agent runs (" code { "systemctl status buildtrail-agent" } "), and whether it reaches this collector. What it saw meanwhile waits in its spool." } }))
        }
        (facts(view, summary, now))
        (coverage(host))
        (card("Latest jobs", &html! { a href=(crate::web::link::to("/jobs").with("where", &condition("host", &summary.host_id)).with("span", "all")) { "All its jobs" } }, &html! {
            @if host.jobs.is_empty() { (empty(&html! { "It has run no job yet." })) } @else { (jobs::table(view, &host.jobs)) }
        }))
        (card("What the collector noticed", &html! {}, &html! {
            @if host.acts.is_empty() { (empty(&html! { "Nothing about this host." })) }
            @else { table.cards {
                thead { tr { th { "Time (" (view.zone.name()) ")" } th { "What kind" } th { "What" } } }
                tbody { @for act in &host.acts { (act_row(view, act)) } }
            } }
        }))
    };
    page(view, Section::Hosts, &summary.name, &content)
}

fn facts(view: &View, host: &HostSummary, now: &Timestamp) -> Markup {
    let field = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let events = search_for(&condition("host", &host.host_id));
    html! {
        section.card { div.body { dl.facts {
            (field("Sees", sees(host)))
            (field("Lost", html! { (lost(host)) " of " (counted(host.events_captured, "event")) " since its boot" }))
            (field("Lag", html! { (lag(host)) " between an event and its arrival" }))
            (field("Waiting in its spool", html! { (bytes(host.spool_bytes)) }))
            (field("Jobs now", html! { (number(host.running_jobs.into())) }))
            (field("Certificate ends", certificate(view, host, now)))
            (field("Last heartbeat", view.zone.full(host.last_heartbeat.as_ref())))
            (field("Last event", view.zone.full(host.last_event.as_ref())))
            (field("Batches in the log", html! { (number(host.batches)) }))
            (field("Agent", html! { (short(&host.agent_version)) }))
            (field("Kernel", html! { (short(&host.kernel_release)) }))
            (field("Host id", html! { span.mono { (short(&host.host_id)) } " · " a href=(events) { "its events" } }))
        } } }
    }
}

fn coverage(host: &Host) -> Markup {
    html! {
        (card("Cannot see", &html! { "In the agent's own words." }, &html! {
            @if host.summary.gaps.is_empty() { (empty(&html! { @if host.coverage.is_some() { "Nothing that it knows of." } @else { "It has not said yet what it sees." } })) }
            @else { div.body { ul { @for gap in &host.summary.gaps { li { "– " (whole(gap)) } } } } }
        }))
        @if let Some(coverage) = &host.coverage {
            (card("Hooks", &html! { "What serves each of them on this kernel." }, &html! {
                table.compact.cards {
                    thead { tr { th { "Hook" } th { "Tier" } th { "Served by, or why not" } } }
                    tbody { @for hook in &coverage.hooks { tr {
                        td.fit.mono data-label="Hook" { (short(&hook.hook)) }
                        td.fit data-label="Tier" { @match hook.tier() {
                            Tier::A => (badge(Tone::Good, "A")),
                            Tier::B => (badge(Tone::New, "B")),
                            Tier::C => (badge(Tone::Warn, "C")),
                            Tier::None | Tier::Unspecified => (badge(Tone::Bad, "none")),
                        } }
                        td data-label="Served by" { (whole(&hook.detail)) }
                    } } }
                }
            }))
        }
    }
}
