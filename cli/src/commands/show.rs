//! `buildtrail show JOB`

use std::{collections::HashMap, io};

use anyhow::{Context as _, Result};
use buildtrail_proto::{
    EVENT_KINDS, Timestamp,
    v1::{
        AuditEvent, Condition, EscapeKind, GetJobRequest, GetJobResponse, Job, JobSummary, Search,
        SearchEventsRequest, StepSummary, audit_event::Body,
    },
};

use super::{Context, count, events};
use crate::{
    args::Shape,
    connect::explain,
    describe, display,
    output::{Output, Tone},
    time,
};

const STEPS: [(&str, usize); 7] = [
    ("STEP", 40),
    ("AT", 12),
    ("TOOK", 8),
    ("PROCESSES", 10),
    ("SECRETS", 8),
    ("CREDENTIALS", 12),
    ("CONNECTIONS", 12),
];
const TIMELINE: [(&str, usize); 5] =
    [("AT", 12), ("STEP", 28), ("KIND", 17), ("PROCESS", 40), ("WHAT", usize::MAX)];

/// How long after a loss its report may come, at most.
const LOSS_REPORT_SECONDS: i64 = 60;

pub(super) async fn run(context: &mut Context, job_id: String) -> Result<u8> {
    let request = GetJobRequest { job_id };
    let mut client = context.client().await?;
    let answer = client.get_job(request).await.map_err(|status| explain(&status))?.into_inner();
    match context.shape {
        Shape::Table => {}
        Shape::Json | Shape::NdJson => {
            context.out.json(&answer)?;
            return Ok(0);
        }
        Shape::Csv => {
            events::list_of_events().print(&mut context.out, Shape::Csv, &answer.timeline)?;
            return Ok(0);
        }
    }
    let summary = answer.summary.as_ref().context("the collector's answer holds no job")?;
    let losses = client.search_events(losses_during(summary)).await.map_err(|status| explain(&status))?;
    let lost = losses.into_inner().events.iter().map(lost_events).sum();
    let about = client.search_events(about_identity(summary)).await.map_err(|status| explain(&status))?;
    let mut about = about.into_inner().events;
    about.sort_by_key(|event| event.boot_time_ns);
    let out = &mut context.out;
    identity(out, summary, &about)?;
    steps(out, summary, &answer.steps)?;
    section(out, summary, "Left behind", &about, is_left_behind)?;
    section(out, summary, "Attempts and contamination", &about, is_attempt)?;
    timeline(out, summary, &answer)?;
    totals(out, summary, lost)?;
    Ok(0)
}

/// Losses belong to no job: ask for those of its host in its time, and a little after it, when they are reported.
fn losses_during(summary: &JobSummary) -> SearchEventsRequest {
    let until =
        summary.last_event.map(|last| Timestamp { seconds: last.seconds + LOSS_REPORT_SECONDS, ..last });
    let search = Search {
        r#where: vec![is("kind", &["loss"]), is("host", &[&buildtrail_query::exactly(&summary.host_id)])],
        since: summary.first_event,
        until,
        ..Search::default()
    };
    SearchEventsRequest { search: Some(search), limit: 10_000, ..SearchEventsRequest::default() }
}

fn is(field: &str, values: &[&str]) -> Condition {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Condition { field: field.into(), values, ..Condition::default() }
}

/// What says whose the job's doings are, and what it left.
fn about_identity(summary: &JobSummary) -> SearchEventsRequest {
    const KINDS: [&str; 8] = [
        "job.started",
        "job.finished",
        "identity.spoof",
        "contamination",
        "credential.left",
        "escape",
        "delegation",
        "identity.verified",
    ];
    let job = summary.job.as_ref().map(|job| job.job_id.clone()).unwrap_or_default();
    let search = Search { r#where: vec![is("job", &[&job]), is("kind", &KINDS)], ..Search::default() };
    SearchEventsRequest { search: Some(search), limit: 1000, ..SearchEventsRequest::default() }
}

fn is_left_behind(event: &AuditEvent) -> bool {
    match &event.body {
        Some(Body::CredentialLeftBehind(_)) => true,
        Some(Body::Escape(escape)) => {
            matches!(escape.kind(), EscapeKind::OutlivedJob | EscapeKind::Container)
        }
        _ => false,
    }
}

fn is_attempt(event: &AuditEvent) -> bool {
    match &event.body {
        Some(Body::IdentitySpoof(_) | Body::Contamination(_) | Body::Delegation(_)) => true,
        Some(Body::Escape(_)) => !is_left_behind(event),
        _ => false,
    }
}

/// Nothing where there is nothing to tell.
fn section(
    out: &mut Output,
    summary: &JobSummary,
    title: &str,
    events: &[AuditEvent],
    wanted: fn(&AuditEvent) -> bool,
) -> io::Result<()> {
    let rows: Vec<_> =
        events.iter().filter(|event| wanted(event)).map(|event| row_of(summary, event)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.toned_line(Tone::Heading, title)?;
    out.table(&TIMELINE, &rows)
}

/// How the identity is known, and what the CI provider said about it.
fn assurance(job: &Job, about: &[AuditEvent]) -> String {
    let mut words = vec![describe::assurance(job.assurance()).to_owned()];
    for event in about {
        match &event.body {
            Some(Body::JobStarted(started)) if started.already_running => {
                words.push("recovered: the job ran before the agent did".to_owned());
            }
            Some(Body::IdentityVerified(_)) => words.push(describe::what(event)),
            _ => {}
        }
    }
    words.join("; ")
}

/// The agent's own measure; the job's last event can come long after its end.
fn duration(summary: &JobSummary, about: &[AuditEvent]) -> String {
    let measured = about.iter().find_map(|event| match &event.body {
        Some(Body::JobFinished(finished)) => Some(time::duration(finished.duration_ns.into())),
        _ => None,
    });
    measured.unwrap_or_else(|| time::took(summary.first_event.as_ref(), summary.last_event.as_ref()))
}

fn identity(out: &mut Output, summary: &JobSummary, about: &[AuditEvent]) -> io::Result<()> {
    let job = summary.job.clone().unwrap_or_default();
    let safe = |text: &str| display::safe(text, false);
    out.toned_line(Tone::Heading, format_args!("Job {}", safe(&job.job_id)))?;
    let attempt =
        if job.run_attempt.is_empty() { String::new() } else { format!(", attempt {}", job.run_attempt) };
    let ended = if summary.finished {
        format!("finished after {}", duration(summary, about))
    } else {
        "not finished (or its end has not arrived)".to_owned()
    };
    for (title, text) in [
        ("repository", format!("{} {}", job.server, job.repository)),
        ("workflow", job.workflow.clone()),
        ("job", job.name.clone()),
        ("run", format!("{}{attempt}", job.run_id)),
        ("actor", job.actor.clone()),
        ("trigger", job.trigger.clone()),
        ("ref", job.r#ref.clone()),
        ("commit", job.sha.clone()),
        ("platform", job.platform.clone()),
        ("runner", job.runner_name.clone()),
        ("host", summary.host_id.clone()),
        ("container", job.container.clone()),
        ("page", job.url.clone()),
        ("identity", assurance(&job, about)),
        ("started", time::utc(summary.first_event.as_ref())),
        ("state", ended),
    ] {
        if !text.trim().is_empty() {
            out.line(format_args!("  {title:<12}{}", safe(text.trim())))?;
        }
    }
    Ok(())
}

fn steps(out: &mut Output, summary: &JobSummary, steps: &[StepSummary]) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let row = |step: &StepSummary| {
        vec![
            describe::step(step.step.as_ref(), false),
            time::since(summary.first_event.as_ref(), step.first_event.as_ref()),
            time::took(step.first_event.as_ref(), step.last_event.as_ref()),
            count(&step.counts, "process.exec"),
            count(&step.counts, "secret.access"),
            count(&step.counts, "credential.use"),
            count(&step.counts, "connection.opened"),
        ]
    };
    out.line("")?;
    out.toned_line(Tone::Heading, "Steps")?;
    out.table(&STEPS, &steps.iter().map(row).collect::<Vec<_>>())
}

fn row_of(summary: &JobSummary, event: &AuditEvent) -> Vec<String> {
    vec![
        time::since(summary.first_event.as_ref(), event.time.as_ref()),
        describe::step(event.step.as_ref(), event.text_escaped),
        event.kind().to_owned(),
        describe::process(event, true),
        describe::what(event),
    ]
}

fn timeline(out: &mut Output, summary: &JobSummary, answer: &GetJobResponse) -> io::Result<()> {
    out.line("")?;
    out.toned_line(Tone::Heading, "Timeline")?;
    let rows: Vec<_> = answer.timeline.iter().map(|event| row_of(summary, event)).collect();
    out.table(&TIMELINE, &rows)?;
    if answer.more {
        out.line("  … and more: `buildtrail events --job ID` lists them")?;
    }
    Ok(())
}

fn totals(out: &mut Output, summary: &JobSummary, lost: u64) -> io::Result<()> {
    let counted = |kind: &&str| summary.counts.get(*kind).is_some_and(|count| *count > 0);
    let totals: Vec<_> =
        EVENT_KINDS.iter().filter(|kind| counted(kind)).map(|kind| total(&summary.counts, kind)).collect();
    out.line("")?;
    out.toned_line(Tone::Heading, "Totals")?;
    out.line(format_args!("  {}", if totals.is_empty() { "no events".into() } else { totals.join(", ") }))?;
    if lost == 0 {
        out.toned_line(Tone::Good, "  0 events lost on this host while the job ran")
    } else {
        let how = "`buildtrail events --kind loss` says which";
        out.toned_line(Tone::Bad, format_args!("  {lost} events lost on this host while the job ran: {how}"))
    }
}

fn total(counts: &HashMap<String, u64>, kind: &str) -> String {
    format!("{} {kind}", count(counts, kind))
}

fn lost_events(event: &AuditEvent) -> u64 {
    match &event.body {
        Some(Body::Loss(loss)) => loss.count,
        _ => 0,
    }
}
