//! `evasion NAME DIRECTORY` does one technique; `evasion prepare DIRECTORY` makes the fake secrets; `reader …` plays the
//! process that only reads; `evasion load …` does much at once, `evasion micro …` measures single operations.

use std::{env, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use buildtrail_evasion::{load, micro, place, reader};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match act(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(u8::try_from(place::explain(&error)).unwrap_or(1)),
    }
}

fn act(words: &[&str]) -> Result<()> {
    match words {
        [program, rest @ ..] if program.ends_with("reader") => reader::act(rest),
        [_, "load", rest @ ..] => load::act(rest),
        [_, "micro", rest @ ..] => micro::act(rest),
        [_, "prepare", directory] => place::prepare(Path::new(directory)),
        [_, name, directory] => place::run(name, Path::new(directory)),
        _ => bail!("usage: evasion NAME DIRECTORY | evasion prepare DIRECTORY"),
    }
}
