//! One job: everything that is known of it, most telling first.

use std::collections::{BTreeMap, HashSet};

use axum::response::Response;
use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AggregateRow, AuditEvent, Job, JobFinished, JobSummary, StepSummary, audit_event::Body},
};
use buildtrail_words::{describe, time};
use maud::{Markup, html};

use super::{
    events::{self, Around, job_id},
    jobs::{branch, count, state},
    processes::Tree,
};
use crate::web::{
    chart,
    layout::{Section, View, page, search_for, title_below},
    link::to,
    parts::{Tone, badge, card, empty, named, notice},
    text::{bytes, counted, number, short, whole},
};

/// Events of kinds that deserve a look of their own.
pub(in crate::web) const TELLING: [&str; 7] = [
    "memory.access",
    "identity.spoof",
    "contamination",
    "escape",
    "delegation",
    "credential.left",
    "socket.opened",
];
/// Longest value that a link searches for as it is …
const MAX_SEARCHED_BYTES: usize = 500;
/// … and how much of a longer one.
const SEARCHED_CHARACTERS: usize = 100;
/// Rows of one step that are shown.
const STEP_ROWS: usize = 200;

/// A secret, a credential or a destination of the job.
pub(in crate::web) struct Touched {
    pub(in crate::web) row: AggregateRow,
    /// No earlier job of this workflow did the same.
    pub(in crate::web) new: bool,
}

/// Whether earlier runs of the workflow are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum History {
    Known,
    FirstRun,
}

/// What the page shows.
pub(in crate::web) struct Page {
    pub(in crate::web) summary: JobSummary,
    pub(in crate::web) host_name: String,
    pub(in crate::web) steps: Vec<StepSummary>,
    /// Everything but process.exec, oldest first.
    pub(in crate::web) timeline: Vec<AuditEvent>,
    pub(in crate::web) timeline_more: bool,
    pub(in crate::web) processes: Vec<AuditEvent>,
    pub(in crate::web) processes_more: bool,
    pub(in crate::web) secrets: Vec<Touched>,
    pub(in crate::web) credentials: Vec<Touched>,
    pub(in crate::web) destinations: Vec<Touched>,
    pub(in crate::web) history: History,
    pub(in crate::web) may_export: bool,
}

pub(in crate::web) fn show(view: &View, shown: &Page) -> Response {
    let summary = &shown.summary;
    let job = summary.job.clone().unwrap_or_default();
    let heading = html! { (short(&job.repository)) " " (state(summary)) };
    let sentence = html! {
        (short(&job.workflow)) @if !job.name.is_empty() { " · " (short(&job.name)) }
        " · " (view.zone.full(summary.first_event.as_ref()))
        " · " (time::took(summary.first_event.as_ref(), summary.last_event.as_ref()))
    };
    let content = html! {
        (title_below("/jobs", "Jobs", &heading, &sentence))
        (actions(view, &job, shown.may_export))
        (numbers(shown))
        (telling(view, shown))
        (identity(view, shown, &job))
        (news(shown, &job))
        (secrets(view, shown, &job))
        (destinations(view, shown, &job))
        (steps(view, shown, &job))
        (processes(shown, &job))
        (completeness(shown, &job))
    };
    page(view, Section::Jobs, &format!("{} {}", job.repository, job.workflow), &content)
}

fn actions(view: &View, job: &Job, may_export: bool) -> Markup {
    let id = job_id(&job.job_id);
    html! {
        div.actions {
            @if let Some(csrf) = view.visitor.as_ref().and_then(|visitor| visitor.csrf.as_ref()) {
                form method="post" action={ "/jobs/" (id) "/verify" } {
                    input type="hidden" name="csrf" value=(csrf);
                    button.primary type="submit" { "Verify this job" }
                }
            }
            @if may_export {
                a.button href={ "/jobs/" (id) "/evidence" } download={ "job-" (id) ".evidence" } { "Download evidence" }
            }
            a.button href=(search_for(&format!("job={id}"))) { "Search its events" }
        }
    }
}

fn numbers(shown: &Page) -> Markup {
    let summary = &shown.summary;
    let number_of = |label: &str, value: String, note: String| {
        html! { div.stat { span.label { (label) } span.value { (value) } span.note { (note) } } }
    };
    let kinds = |kind| number(count(summary, kind));
    html! {
        div.stats {
            (number_of("Secrets", number(shown.secrets.len() as u64), counted(count(summary, "secret.access"), "access")))
            (number_of("Credentials", number(shown.credentials.len() as u64), counted(count(summary, "credential.use"), "use")))
            (number_of("Destinations", number(shown.destinations.len() as u64), counted(count(summary, "connection.opened"), "connection")))
            (number_of("Sent", bytes(summary.bytes_out), format!("{} received", bytes(summary.bytes_in))))
            (number_of("Processes", kinds("process.exec"), counted(shown.steps.len() as u64, "step")))
        }
    }
}

fn telling(view: &View, shown: &Page) -> Markup {
    let found: Vec<AuditEvent> =
        shown.timeline.iter().filter(|event| TELLING.contains(&event.kind())).take(50).cloned().collect();
    html! {
        @if !found.is_empty() {
            (card("Needs a look", &html! { "Things that a build rarely has to do." }, &events::table(view, &found, Around::Step(shown.summary.first_event.as_ref()))))
        }
    }
}

fn identity(view: &View, shown: &Page, job: &Job) -> Markup {
    let assurance = describe::assurance(job.assurance());
    let (word, meaning) = assurance.split_once(": ").unwrap_or((assurance, ""));
    let tone = match word {
        "verified" => Tone::Good,
        "observed" => Tone::New,
        _ => Tone::Warn,
    };
    let field = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let searched = |field: &str, value: &str| {
        html! {
            @if value.is_empty() { span.none { "–" } }
            @else { a href=(search_for(&condition(field, value))) { (whole(value)) } }
        }
    };
    html! {
        section.card {
            header { h2 { "Identity" } (badge(tone, word)) p { (meaning) } }
            div.body { dl.facts {
                (field("Repository", searched("repo", &job.repository)))
                (field("Workflow", searched("workflow", &job.workflow)))
                (field("Triggered by", html! { (searched("actor", &job.actor)) @if !job.trigger.is_empty() { " (" (short(&job.trigger)) ")" } }))
                (field("Branch or tag", html! { (whole(branch(&job.r#ref))) }))
                (field("Commit", html! { span.mono { (whole(&job.sha)) } }))
                (field("Run", html! { (searched("run", &job.run_id)) @if !job.run_attempt.is_empty() { " attempt " (short(&job.run_attempt)) } }))
                (field("CI", html! { (short(&job.platform)) " " (whole(&job.server)) }))
                (field("Runner", html! { (short(&job.runner_name)) }))
                (field("Host", html! { a href=(to(format!("/hosts/{}", host_id(&shown.summary.host_id)))) { (short(&shown.host_name)) } }))
                (field("Ended", view.zone.full(shown.summary.finished.then_some(shown.summary.last_event.as_ref()).flatten())))
                (field("Job id", html! { span.mono { (short(&job.job_id)) } }))
                @if !job.container.is_empty() { (field("Container", html! { span.mono { (short(&job.container)) } })) }
            } }
        }
    }
}

/// A host's id as part of an address.
pub(in crate::web) fn host_id(id: &str) -> String {
    id.chars().filter(|character| character.is_ascii_alphanumeric() || "._:-".contains(*character)).collect()
}

/// `field="value"` in the search language; of a value that is too long for an address, `field~"its beginning"`.
pub(in crate::web) fn condition(field: &str, value: &str) -> String {
    use buildtrail_proto::v1::{Condition, Operator, Search};
    let exact = buildtrail_query::exactly(value);
    let (operator, value) = if exact.len() <= MAX_SEARCHED_BYTES {
        (Operator::Equals, exact)
    } else {
        (Operator::Contains, value.chars().take(SEARCHED_CHARACTERS).collect())
    };
    let condition = Condition { field: field.to_owned(), operator: operator.into(), values: vec![value] };
    buildtrail_query::to_text(&Search { r#where: vec![condition], ..Search::default() })
}

fn news(shown: &Page, job: &Job) -> Markup {
    let new = |touched: &[Touched], page: &'static str, did: &'static str| -> Vec<Markup> {
        let new = touched.iter().filter(|touched| touched.new);
        new.map(|touched| html! { (did) " " (named(page, value(&touched.row))) }).collect()
    };
    let mut news = new(&shown.secrets, "/secret", "secret");
    news.extend(new(&shown.credentials, "/credential", "credential"));
    news.extend(new(&shown.destinations, "/destination", "destination"));
    let what = html! { "Never before in " (short(&job.repository)) ", workflow " (short(&job.workflow)) "." };
    if shown.history == History::FirstRun {
        let words = html! { "This is the first run of the workflow that is known, so there is nothing to compare it with." };
        return card("New for this workflow", &html! {}, &empty(&words));
    }
    if news.is_empty() {
        let words = html! { "Nothing: earlier runs touched the same secrets and destinations." };
        return card("New for this workflow", &html! {}, &empty(&words));
    }
    card(
        "New for this workflow",
        &what,
        &html! {
            div.body { ul { @for item in &news { li { (badge(Tone::New, "new")) " " (item) } } } }
        },
    )
}

fn value(row: &AggregateRow) -> &str {
    row.values.first().map_or("", String::as_str)
}

fn secrets(view: &View, shown: &Page, job: &Job) -> Markup {
    let start = shown.summary.first_event.as_ref();
    let rows = |touched: &[Touched], page: &'static str, field: &'static str, label: &'static str| {
        html! {
            @for touched in touched {
                tr {
                    th scope="row" { (named(page, value(&touched.row))) " " @if touched.new { (badge(Tone::New, "new")) } }
                    td.fit data-label="Kind" { (label) }
                    td data-label="Programs" { (programs(shown, value(&touched.row))) }
                    td.num data-label="Times" { a href=(search_for(&format!("job={} {}", job_id(&job.job_id), condition(field, value(&touched.row))))) { (number(touched.row.events)) } }
                    td.num data-label="First" { (time::since(start, touched.row.first.as_ref())) }
                    td.num data-label="Last" { (time::since(start, touched.row.last.as_ref())) }
                }
            }
        }
    };
    let table = html! {
        table.cards {
            thead { tr { th { "Name" } th { "Kind" } th { "Programs" } th.num { "Times" } th.num { "First" } th.num { "Last" } } }
            tbody {
                (rows(&shown.secrets, "/secret", "secret", "secret file"))
                (rows(&shown.credentials, "/credential", "credential", "credential"))
            }
        }
    };
    let none = shown.secrets.is_empty() && shown.credentials.is_empty();
    let content = if none {
        empty(&html! { "The job touched no secret that the host's catalogue knows, and used no credential." })
    } else {
        table
    };
    let _ = view;
    card(
        "Secrets and credentials",
        &html! { "What to rotate if this job was not yours. Times count from the job's start." },
        &content,
    )
}

/// Which programs touched a secret or used a credential.
fn programs(shown: &Page, name: &str) -> Markup {
    let mut seen = HashSet::new();
    let programs: Vec<&str> = shown
        .timeline
        .iter()
        .filter(|event| match &event.body {
            Some(Body::SecretAccess(access)) => access.secret == name,
            Some(Body::CredentialUse(used)) => used.name == name,
            _ => false,
        })
        .filter_map(|event| event.process.as_ref().map(|process| process.executable.as_str()))
        .filter(|executable| seen.insert(*executable))
        .take(4)
        .collect();
    html! {
        @for (index, program) in programs.iter().enumerate() {
            @if index > 0 { ", " }
            span.mono { (short(program.rsplit('/').next().unwrap_or(program))) }
        }
    }
}

fn destinations(view: &View, shown: &Page, job: &Job) -> Markup {
    let start = shown.summary.first_event.as_ref();
    let greatest = shown.destinations.iter().map(|touched| touched.row.bytes_out).max().unwrap_or_default();
    let content = html! {
        @if shown.destinations.is_empty() { (empty(&html! { "The job opened no connection." })) }
        @else {
            table.cards {
                thead { tr { th { "Destination" } th.num { "Events" } th.num { "Sent" } th { span.muted { "" } } th.num { "Received" } th.num { "First" } } }
                tbody { @for Touched { row, new } in &shown.destinations {
                    tr {
                        th scope="row" { (named("/destination", value(row))) " " @if *new { (badge(Tone::New, "new")) } }
                        td.num data-label="Events" { a href=(search_for(&format!("job={} {}", job_id(&job.job_id), condition("dest", value(row))))) { (number(row.events)) } }
                        td.num data-label="Sent" { (bytes(row.bytes_out)) }
                        td.graph { (chart::share(row.bytes_out, greatest)) }
                        td.num data-label="Received" { (bytes(row.bytes_in)) }
                        td.num data-label="First" { (time::since(start, row.first.as_ref())) }
                    }
                } }
            }
        }
    };
    let _ = view;
    card("Destinations", &html! { "Bytes are of connections that have ended." }, &content)
}

fn steps(view: &View, shown: &Page, job: &Job) -> Markup {
    let summary = &shown.summary;
    let start = summary.first_event.as_ref().map(unix_nanos).unwrap_or_default();
    let whole_time = between(start, summary.last_event.as_ref());
    let mut by_step: BTreeMap<(u32, &str), Vec<AuditEvent>> = BTreeMap::new();
    for event in &shown.timeline {
        let step = event.step.as_ref().map_or((0, ""), |step| (step.index, step.id.as_str()));
        by_step.entry(step).or_default().push(event.clone());
    }
    let none = Vec::new();
    let outside = by_step.get(&(0, "")).unwrap_or(&none);
    card(
        "Timeline",
        &html! { "Step by step; a step opens to what happened in it. Started programs are in the process tree." },
        &html! {
            @if shown.timeline_more {
                (notice(Tone::Warn, &html! { "The job has more events than are shown here: " a href=(search_for(&format!("job={}", job_id(&job.job_id)))) { "search them" } "." }))
            }
            ol.steps {
                @for step in &shown.steps {
                    @let about = step.step.clone().unwrap_or_default();
                    @let events = by_step.get(&(about.index, about.id.as_str())).unwrap_or(&none);
                    li { details open[has_telling(events)] {
                        summary {
                            span.name { (events::step(step.step.as_ref(), false)) }
                            (chart::span(between(start, step.first_event.as_ref()), between(start, step.last_event.as_ref()), whole_time))
                            span.when { (counts(&step.counts)) span.muted.num { (time::took(step.first_event.as_ref(), step.last_event.as_ref())) } }
                        }
                        (step_events(view, events, summary.first_event.as_ref(), step))
                    } }
                }
                @if !outside.is_empty() {
                    li { details {
                        summary { span.name { "Around the steps: the runner's own preparation and clean-up" } span {} span.when { span.muted { (counted(outside.len() as u64, "event")) } } }
                        (events::table(view, outside.get(..STEP_ROWS).unwrap_or(outside), Around::Step(summary.first_event.as_ref())))
                    } }
                }
            }
        },
    )
}

fn has_telling(events: &[AuditEvent]) -> bool {
    events.iter().any(|event| TELLING.contains(&event.kind()))
}

fn step_events(view: &View, events: &[AuditEvent], start: Option<&Timestamp>, step: &StepSummary) -> Markup {
    html! {
        @if events.is_empty() {
            @let started = step.counts.get("process.exec").copied().unwrap_or_default();
            (empty(&html! { "Nothing but " (counted(started, "started program")) "." }))
        } @else {
            (events::table(view, events.get(..STEP_ROWS).unwrap_or(events), Around::Step(start)))
            @if events.len() > STEP_ROWS { (empty(&html! { "and " (number((events.len() - STEP_ROWS) as u64)) " more" })) }
        }
    }
}

fn counts(counts: &std::collections::HashMap<String, u64>) -> Markup {
    let of = |kind: &str| counts.get(kind).copied().unwrap_or_default();
    html! {
        @if of("secret.access") > 0 { (badge(Tone::Warn, &counted(of("secret.access"), "secret"))) }
        @if of("credential.use") > 0 { (badge(Tone::Warn, &counted(of("credential.use"), "credential"))) }
        @if of("connection.opened") > 0 { (badge(Tone::Plain, &counted(of("connection.opened"), "connection"))) }
    }
}

fn between(start: i128, time: Option<&Timestamp>) -> u128 {
    time.map_or(0, |time| u128::try_from(unix_nanos(time) - start).unwrap_or_default())
}

fn processes(shown: &Page, job: &Job) -> Markup {
    let mut events: Vec<&AuditEvent> = shown.processes.iter().chain(&shown.timeline).collect();
    events.sort_by_key(|event| event.boot_time_ns);
    let events: Vec<AuditEvent> = events.into_iter().cloned().collect();
    let tree = Tree::of(&events);
    let all = format!("job={} kind=process.exec", job_id(&job.job_id));
    card(
        "Processes",
        &html! { (counted(tree.len() as u64, "process")) ": who started whom, and what each touched. "
        @if shown.processes_more { "These are the first; " a href=(search_for(&all)) { "search all" } "." } },
        &html! { @if tree.len() == 0 { (empty(&html! { "No process of this job is known." })) } @else { (tree.show()) } },
    )
}

fn completeness(shown: &Page, job: &Job) -> Markup {
    let summary = &shown.summary;
    let finished = shown.timeline.iter().find_map(|event| match &event.body {
        Some(Body::JobFinished(finished)) => Some(finished),
        _ => None,
    });
    let missing = finished.map(|finished| missing(summary, finished)).unwrap_or_default();
    let lost = count(summary, "loss");
    let content = html! {
        div.body {
            @if !summary.finished { (badge(Tone::Warn, "open")) " The job's end has not been seen: it still runs, its host is silent, or the end waits in the host's spool." }
            @else if !missing.is_empty() { (badge(Tone::Bad, "incomplete")) " The agent counted more than is here: " (missing.join(", ")) ". They may still be on their way, were given up by a full spool, or were removed by retention." }
            @else if lost > 0 { (badge(Tone::Bad, "losses")) " The host reported losses in this job: " a href=(search_for(&format!("job={} kind=loss", job_id(&job.job_id)))) { (counted(lost, "loss event")) } "." }
            @else { (badge(Tone::Good, "complete")) " Everything that the agent counted in this job is here, and it reported no loss." }
            p.muted { "This compares numbers. “Verify this job” proves it: every batch is read again from the log and its signature, its chain and its place in the signed tree are checked." }
        }
    };
    card("Completeness", &html! {}, &content)
}

fn missing(summary: &JobSummary, finished: &JobFinished) -> Vec<String> {
    let pairs = [
        ("process.exec", finished.processes),
        ("secret.access", finished.secret_accesses),
        ("credential.use", finished.credential_uses),
        ("connection.opened", finished.connections),
        ("dns.lookup", finished.dns_lookups),
    ];
    let missing = pairs.into_iter().filter_map(|(kind, told)| {
        let here = count(summary, kind);
        (here < told).then(|| format!("{} of {} {kind}", number(told - here), number(told)))
    });
    missing.collect()
}
