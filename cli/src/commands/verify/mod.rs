//! `buildtrail verify`

mod live;
mod offline;
mod seen;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use buildtrail_evidence::{
    tlog::{note::NoteKey, policy::Policy},
    verify::{self, Paths, Question, Span, Trust},
};
use buildtrail_proto::v1::{VerifyRequest, VerifyResponse};

use super::Context;
use crate::{args::Verify, connect::explain, display, output::Tone};

/// What was checked was altered or is damaged.
const TAMPERED: u8 = 3;
/// It cannot be read.
const UNREADABLE: u8 = 4;
/// Nothing was altered, but events are missing, or hosts signed that they lost some.
const INCOMPLETE: u8 = 5;

pub(super) async fn run(context: &mut Context, asked: Verify) -> Result<u8> {
    if asked.trust_collector {
        let answer = context.client().await?.verify(VerifyRequest {}).await;
        return report(context, &answer.map_err(|status| explain(&status))?.into_inner());
    }
    let trust = Trust {
        log_key: asked.log_key.as_deref().map(log_key).transpose()?,
        policy: asked.policy.as_deref().map(policy).transpose()?,
        seen: asked.from_checkpoint.as_deref().map(seen::from_file).transpose()?,
    };
    let span = Span { since: asked.period.since, until: asked.period.until };
    let question = Question { span, host: asked.host.clone() };
    let found = if let Some(directory) = &asked.log {
        verify::verify_directory(&Paths::find(directory), &trust, question).map_err(|error| error.to_string())
    } else if let Some(path) = &asked.bundle {
        offline::bundle(path, &trust)
    } else if let (Some(directory), Some(certificate)) = (&asked.spool, &asked.host_certificate) {
        offline::spool(directory, certificate, asked.last_batch)?
    } else {
        Ok(live::verify(context, trust, question).await?)
    };
    match found {
        Ok(found) if asked.host.is_some() && found.hosts.is_empty() && found.is_intact() => {
            bail!("there is no host {:?} in what was checked", asked.host.unwrap_or_default())
        }
        Ok(found) => Ok(report(context, &found.to_response())?),
        Err(error) => {
            eprintln!("buildtrail: {}", display::safe(&error, true));
            Ok(UNREADABLE)
        }
    }
}

/// A key, or a file that holds one.
fn log_key(text: &str) -> Result<NoteKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let read = fs::read_to_string(text);
    let read =
        read.with_context(|| format!("--log-key: {text:?} is neither a key nor a file that can be read"))?;
    read.trim().parse().with_context(|| format!("--log-key: {text}"))
}

fn policy(path: &Path) -> Result<Policy> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the policy {}", path.display()))?;
    Policy::parse(&text).with_context(|| path.display().to_string())
}

fn report(context: &mut Context, found: &VerifyResponse) -> Result<u8> {
    let complete = found.hosts.iter().all(|host| host.complete && host.lost == 0);
    let code = match (found.problems.is_empty(), complete) {
        (false, _) => TAMPERED,
        (true, false) => INCOMPLETE,
        (true, true) => 0,
    };
    if context.is_json()? {
        context.out.json(found)?;
        return Ok(code);
    }
    let out = &mut context.out;
    for host in &found.hosts {
        let tone = if host.complete && host.lost == 0 { Tone::Good } else { Tone::Bad };
        out.toned_line(tone, display::safe(&host.statement, true))?;
    }
    for problem in &found.problems {
        out.toned_line(Tone::Bad, format_args!("PROBLEM: {}", display::safe(problem, true)))?;
    }
    for note in &found.notes {
        out.line(display::safe(note, true))?;
    }
    let hosts = match found.hosts.len() {
        1 => "1 host".to_owned(),
        many => format!("{many} hosts"),
    };
    let size = format!("{} batches, {} events, {hosts}", found.batches, found.events);
    match code {
        TAMPERED => {
            out.toned_line(Tone::Bad, format_args!("NOT INTACT: it was altered or is damaged ({size})."))
        }
        INCOMPLETE => {
            out.toned_line(Tone::Bad, format_args!("Intact, but events are missing or were lost ({size})."))
        }
        _ => out.toned_line(Tone::Good, format_args!("Intact and complete ({size}).")),
    }?;
    Ok(code)
}
