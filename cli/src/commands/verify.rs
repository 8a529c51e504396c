//! `buildtrail verify`

use std::{io, path::Path};

use anyhow::Result;
use buildtrail_proto::v1::{VerifyRequest, VerifyResponse};

use super::Context;
use crate::{connect::explain, display, output::Tone};

/// The log was altered or is damaged.
const TAMPERED: u8 = 3;
/// The log cannot be read.
const UNREADABLE: u8 = 4;
/// Nothing was altered, but events are missing, or hosts signed that they lost some.
const INCOMPLETE: u8 = 5;

pub(super) async fn online(context: &mut Context) -> Result<u8> {
    let answer = context.client().await?.verify(VerifyRequest {}).await.map_err(|status| explain(&status))?;
    Ok(report(context, &answer.into_inner())?)
}

pub(super) fn offline(context: &mut Context, directory: &Path) -> Result<u8> {
    match buildtrail_evidence::verify::verify(directory) {
        Ok(found) => Ok(report(context, &found.to_response())?),
        Err(error) => {
            eprintln!("buildtrail: {}", display::safe(&error.to_string(), true));
            Ok(UNREADABLE)
        }
    }
}

fn report(context: &mut Context, found: &VerifyResponse) -> io::Result<u8> {
    let complete = found.hosts.iter().all(|host| host.complete && host.lost == 0);
    let code = match (found.problems.is_empty(), complete) {
        (false, _) => TAMPERED,
        (true, false) => INCOMPLETE,
        (true, true) => 0,
    };
    let out = &mut context.out;
    if context.json {
        out.json(found)?;
        return Ok(code);
    }
    for host in &found.hosts {
        let tone = if host.complete && host.lost == 0 { Tone::Good } else { Tone::Bad };
        out.toned_line(tone, display::safe(&host.statement, true))?;
    }
    for problem in &found.problems {
        out.toned_line(Tone::Bad, format_args!("PROBLEM: {}", display::safe(problem, true)))?;
    }
    let hosts = match found.hosts.len() {
        1 => "1 host".to_owned(),
        many => format!("{many} hosts"),
    };
    let size = format!("{} batches, {} events, {hosts}", found.batches, found.events);
    match code {
        TAMPERED => {
            out.toned_line(Tone::Bad, format_args!("NOT INTACT: the log was altered or is damaged ({size})."))
        }
        INCOMPLETE => {
            out.toned_line(Tone::Bad, format_args!("Intact, but events are missing or were lost ({size})."))
        }
        _ => out.toned_line(Tone::Good, format_args!("Intact and complete ({size}).")),
    }?;
    Ok(code)
}
