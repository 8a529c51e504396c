//! The last 24 hours at a glance.

use axum::response::Response;
use buildtrail_proto::v1::{AuditEvent, HostSummary, JobSummary, RecordedAct};
use buildtrail_words::{acts, display};
use maud::{Markup, html};

use super::{
    events::{self, Around},
    job::host_id,
    jobs,
    subjects::{Rows, Subject, table},
};
use crate::web::{
    chart::{self, Bar},
    layout::{Section, View, page, title},
    parts::{Stat, Tone, badge, card, empty, stat},
    text::{counted, number, sentence, short},
};

/// What the page shows.
pub(in crate::web) struct Overview {
    pub(in crate::web) jobs: u64,
    pub(in crate::web) events: u64,
    pub(in crate::web) secret_jobs: u64,
    pub(in crate::web) secret_events: u64,
    pub(in crate::web) new_destinations: Rows,
    pub(in crate::web) new_secrets: Rows,
    /// What a build rarely has to do.
    pub(in crate::web) telling: Vec<AuditEvent>,
    pub(in crate::web) telling_count: u64,
    pub(in crate::web) recent: Vec<JobSummary>,
    pub(in crate::web) jobs_over_time: Vec<Bar>,
    pub(in crate::web) secrets_over_time: Vec<Bar>,
    pub(in crate::web) axis: Vec<String>,
    /// Only for those who see everything.
    pub(in crate::web) site: Option<Site>,
}

/// What is of the hosts and the collector.
pub(in crate::web) struct Site {
    pub(in crate::web) hosts: Vec<HostSummary>,
    pub(in crate::web) acts: Vec<RecordedAct>,
    pub(in crate::web) losses: u64,
}

pub(in crate::web) fn show(view: &View, shown: &Overview) -> Response {
    let content = html! {
        (title(&html! { "Overview" }, &html! { "The last 24 hours of what you may see." }))
        (stats(shown))
        (attention(view, shown))
        div.two {
            section.card { header { h2 { "Jobs" } p.end { "started, by hour" } } (chart::bars("Jobs", &shown.axis, &shown.jobs_over_time)) }
            section.card { header { h2 { "Secrets" } p.end { "accesses, by hour" } } (chart::bars("Secret accesses", &shown.axis, &shown.secrets_over_time)) }
        }
        (card("Latest jobs", &html! { a href="/jobs" { "All jobs" } }, &html! {
            @if shown.recent.is_empty() { (empty(&html! { "No job has been seen yet. Jobs appear here as soon as an enrolled host runs one." })) }
            @else { (jobs::table(view, &shown.recent)) }
        }))
        (fresh(view, "New destinations", "Never connected to before.", Subject::Destination, &shown.new_destinations))
        (fresh(view, "New secrets", "Never touched before.", Subject::Secret, &shown.new_secrets))
    };
    page(view, Section::Overview, "Overview", &content)
}

fn stats(shown: &Overview) -> Markup {
    let plain = |label, value, note: String, link: &str| {
        stat(&Stat { label, value, note, link: link.to_owned(), alarming: false })
    };
    let alarm = |label, value, note: &str, link: &str| {
        stat(&Stat { label, value, note: note.to_owned(), link: link.to_owned(), alarming: true })
    };
    html! {
        div.stats {
            (plain("Jobs", shown.jobs, counted(shown.events, "event"), "/jobs?span=24h"))
            (plain("Secret accesses", shown.secret_events, format!("in {}", counted(shown.secret_jobs, "job")), "/secrets?span=24h"))
            (plain("New destinations", shown.new_destinations.rows.len() as u64, "first seen today".into(), "/destinations?span=24h"))
            (alarm("Needs a look", shown.telling_count + noticed(shown), "rare doings, and detections", "#attention"))
            @if let Some(site) = &shown.site {
                (alarm("Losses", site.losses, "events about loss", "/search?where=kind%3Dloss&span=24h"))
                (alarm("Dark hosts", dark(site).count() as u64, &format!("of {}", counted(site.hosts.len() as u64, "host")), "/hosts"))
            }
        }
    }
}

fn noticed(shown: &Overview) -> u64 {
    shown.site.as_ref().map_or(0, |site| site.acts.len() as u64)
}

fn dark(site: &Site) -> impl Iterator<Item = &HostSummary> {
    site.hosts.iter().filter(|host| host.dark)
}

fn attention(view: &View, shown: &Overview) -> Markup {
    let site = shown.site.as_ref();
    let quiet = shown.telling.is_empty()
        && site.is_none_or(|site| site.acts.is_empty() && dark(site).next().is_none());
    html! {
        div #attention {
            (card("Needs a look", &html! {}, &html! {
                @if quiet { (empty(&html! { (badge(Tone::Good, "quiet")) " No job reached for another process, left its place or pretended to be another" @if site.is_some() { ", and every host reports" } "." })) }
                @if let Some(site) = site {
                    @if dark(site).next().is_some() || !site.acts.is_empty() {
                        table.cards {
                            thead { tr { th { "Time (" (view.zone.name()) ")" } th { "Detection" } th { "What" } } }
                            tbody {
                                @for host in dark(site) { tr {
                                    td.fit data-label="Last heard" { (view.zone.time(host.last_heard.as_ref().or(host.last_event.as_ref()))) }
                                    td.fit data-label="Detection" { (badge(Tone::Bad, "dark now")) }
                                    td data-label="What" { a href={ "/hosts/" (host_id(&host.host_id)) } { (short(&host.name)) } " is silent" }
                                } }
                                @for act in &site.acts { (act_row(view, act)) }
                            }
                        }
                    }
                }
                @if !shown.telling.is_empty() {
                    (events::table(view, &shown.telling, Around::Anywhere))
                    @if shown.telling_count > shown.telling.len() as u64 {
                        nav.pages { a href=(crate::web::layout::search_for(&format!("kind={} since=24h", super::job::TELLING.join(",")))) { "All " (number(shown.telling_count)) } }
                    }
                }
            }))
        }
    }
}

/// What the collector did or noticed, as a row.
pub(in crate::web) fn act_row(view: &View, act: &RecordedAct) -> Markup {
    let entry = act.entry.clone().unwrap_or_default();
    let bad = matches!(
        &*act.kind,
        "host.dark" | "host.cloned" | "chain.fork" | "log.damaged" | "witness.missing" | "disk.full"
    );
    let words = display::safe(&acts::what(&entry), false);
    html! {
        tr {
            td.fit data-label="Time" { (view.zone.time(entry.time.as_ref())) }
            td.fit data-label="What kind" { (badge(if bad { Tone::Bad } else { Tone::Plain }, &display::safe(&act.kind, false))) }
            td data-label="What" { (sentence(&words)) }
        }
    }
}

fn fresh(view: &View, heading: &str, note: &str, subject: Subject, rows: &Rows) -> Markup {
    html! {
        @if !rows.rows.is_empty() { (card(heading, &html! { (note) }, &table(view, subject, rows))) }
    }
}
