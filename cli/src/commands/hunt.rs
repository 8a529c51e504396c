//! `buildtrail hunt`: look for indicators in all history.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use buildtrail_proto::v1::{
    HuntRequest, HuntResult, HuntedIndicator, HuntedJob, HuntedPlace, IndicatorFormat, IndicatorRemark,
    SecretToRotate, hunt_reply::Reply,
};

use super::Context;
use crate::{
    args::{Hunt, IndicatorFile, Shape},
    columns,
    connect::{self, explain},
    describe, display,
    output::{Output, Tone},
    time,
};

/// Exit code when an indicator was found.
const FOUND: u8 = 6;
/// Largest file of indicators, in bytes: what collectors accept.
const MAX_FILE_BYTES: u64 = 8 << 20;

const INDICATORS: [(&str, usize); 7] = [
    ("INDICATOR", 50),
    ("KIND", 12),
    ("JOBS", 8),
    ("EVENTS", 10),
    ("FIRST SEEN", 24),
    ("LAST SEEN", 24),
    ("MATCHED", usize::MAX),
];
const SECRETS: [(&str, usize); 7] = [
    ("", 4),
    ("SECRET OR CREDENTIAL", 40),
    ("WHAT", 10),
    ("EXPOSED IN", 10),
    ("JOBS", 6),
    ("LAST USED", 24),
    ("REPOSITORIES", usize::MAX),
];
const JOBS: [(&str, usize); 6] = [
    ("JOB", 12),
    ("REPOSITORY", 40),
    ("HOST", 36),
    ("FIRST CONTACT", 24),
    ("LAST CONTACT", 24),
    ("WORKFLOW / JOB", usize::MAX),
];
const PLACES: [(&str, usize); 4] =
    [("NAME", 60), ("JOBS", 8), ("FIRST CONTACT", 24), ("LAST CONTACT", usize::MAX)];
const REMARKS: [(&str, usize); 3] = [("LINE", 6), ("TEXT", 50), ("WHY", usize::MAX)];

pub(super) async fn run(context: &mut Context, asked: Hunt) -> Result<u8> {
    let format = match asked.format {
        None => IndicatorFormat::Unspecified,
        Some(IndicatorFile::List) => IndicatorFormat::List,
        Some(IndicatorFile::Stix) => IndicatorFormat::Stix,
        Some(IndicatorFile::Sigma) => IndicatorFormat::Sigma,
    };
    let request = HuntRequest {
        indicators: read(&asked.indicators)?,
        format: format.into(),
        since: asked.period.since,
        until: asked.period.until,
    };
    let mut client = connect::hunting(&context.connection).await?;
    let mut replies = client.hunt(request).await.map_err(|status| explain(&status))?.into_inner();
    let told = io::stderr().is_terminal();
    let mut result = None;
    while let Some(reply) = replies.message().await.map_err(|status| explain(&status))? {
        match reply.reply {
            Some(Reply::Progress(progress)) if told => {
                let stage = display::safe(&progress.stage, false);
                eprintln!("buildtrail: {stage}: {} of {}", progress.done, progress.total.max(progress.done));
            }
            Some(Reply::Result(found)) => result = Some(found),
            _ => {}
        }
    }
    let result = result.context("the collector ended the hunt without a result; its own log says more")?;
    match context.shape {
        Shape::Json | Shape::NdJson => context.out.json(&result)?,
        Shape::Csv => csv(&mut context.out, &result)?,
        Shape::Table => tables(&mut context.out, &result)?,
    }
    Ok(if result.indicators.iter().any(|indicator| indicator.events > 0) { FOUND } else { 0 })
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let bytes = if path == Path::new("-") {
        io::stdin().take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
    };
    let bytes = bytes.with_context(|| format!("cannot read the indicators in {}", path.display()))?;
    if bytes as u64 > MAX_FILE_BYTES {
        bail!("{} is longer than {MAX_FILE_BYTES} bytes; split it", path.display());
    }
    Ok(text)
}

/// One list: what was found of each indicator. What else a hunt says does not fit into rows of one kind: see --json.
fn csv(out: &mut Output, result: &HuntResult) -> io::Result<()> {
    out.csv(columns::INDICATOR_TITLES)?;
    for indicator in &result.indicators {
        out.csv(columns::indicator(indicator))?;
    }
    Ok(())
}

fn tables(out: &mut Output, result: &HuntResult) -> io::Result<()> {
    let (found, others): (Vec<_>, Vec<_>) =
        result.indicators.iter().partition(|indicator| indicator.events > 0);
    let unrecorded = others.iter().filter(|indicator| indicator.not_recorded).count();
    let tone = if found.is_empty() { Tone::Good } else { Tone::Bad };
    out.toned_line(
        tone,
        format_args!(
            "{} of {} indicators found, in {} jobs",
            found.len(),
            result.indicators.len(),
            result.jobs.len() as u64 + result.jobs_not_listed
        ),
    )?;
    section(out, "Indicators", &INDICATORS, found.into_iter().map(indicator_row))?;
    if !result.secrets.is_empty() {
        let rows = result.secrets.iter().zip(1..).map(|(secret, place)| secret_row(secret, place));
        section(out, "Rotate, in this order", &SECRETS, rows)?;
        out.line(format_args!("  {}", display::safe(&result.order, false)))?;
    }
    section(out, "Affected jobs", &JOBS, result.jobs.iter().map(job_row))?;
    if result.jobs_not_listed > 0 {
        out.line(format_args!("  … and {} more", result.jobs_not_listed))?;
    }
    section(out, "Repositories", &PLACES, result.repositories.iter().map(place_row))?;
    section(out, "Hosts", &PLACES, result.hosts.iter().map(place_row))?;
    section(out, "Not understood", &REMARKS, result.remarks.iter().map(remark_row))?;
    if unrecorded > 0 || !result.notes.is_empty() {
        out.line("")?;
    }
    if unrecorded > 0 {
        let words = "are of a kind that agents do not record: that they were not found means nothing";
        out.toned_line(Tone::Bad, format_args!("{unrecorded} indicators {words}"))?;
    }
    for note in &result.notes {
        out.line(display::safe(note, false))?;
    }
    Ok(())
}

fn section(
    out: &mut Output,
    title: &str,
    columns: &[(&str, usize)],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.toned_line(Tone::Heading, title)?;
    out.table(columns, &rows)
}

fn indicator_row(indicator: &HuntedIndicator) -> Vec<String> {
    let matched: Vec<_> = indicator.matched.iter().map(|value| display::safe(value, false)).collect();
    vec![
        display::safe(&indicator.indicator, false),
        display::safe(&indicator.kind, false),
        indicator.jobs.to_string(),
        indicator.events.to_string(),
        time::utc(indicator.first_seen.as_ref()),
        time::utc(indicator.last_seen.as_ref()),
        matched.join(", "),
    ]
}

fn secret_row(secret: &SecretToRotate, place: usize) -> Vec<String> {
    let repositories: Vec<_> = secret.repositories.iter().map(|name| display::safe(name, false)).collect();
    vec![
        format!("{place}."),
        display::safe(&secret.name, false),
        display::safe(&secret.what, false),
        secret.jobs_exposed.to_string(),
        secret.jobs.to_string(),
        time::utc(secret.last_used.as_ref()),
        repositories.join(", "),
    ]
}

fn job_row(hunted: &HuntedJob) -> Vec<String> {
    let job = hunted.job.clone().unwrap_or_default();
    vec![
        describe::short_job(Some(&job)),
        display::safe(&job.repository, false),
        display::safe(&hunted.host_id, false),
        time::utc(hunted.first_seen.as_ref()),
        time::utc(hunted.last_seen.as_ref()),
        format!("{} / {}", display::safe(&job.workflow, false), display::safe(&job.name, false)),
    ]
}

fn place_row(place: &HuntedPlace) -> Vec<String> {
    vec![
        display::safe(&place.name, false),
        place.jobs.to_string(),
        time::utc(place.first_seen.as_ref()),
        time::utc(place.last_seen.as_ref()),
    ]
}

fn remark_row(remark: &IndicatorRemark) -> Vec<String> {
    let line = if remark.line == 0 { "-".to_owned() } else { remark.line.to_string() };
    vec![line, display::safe(&remark.text, false), display::safe(&remark.reason, false)]
}
