//! Turns what the TOML reader says into what a person needs.

use std::path::Path;

use crate::{Invalid, Mistake, SettingsError, locate};

/// Longest piece of a message that is shown, in characters: keys and values come from the file.
const MAX_SHOWN: usize = 300;

/// How alike two names must be (0 to 1) before one is suggested for the other.
const ALIKE: f64 = 0.7;

pub(crate) fn toml_error(error: &toml::de::Error, text: &str, path: &Path) -> SettingsError {
    let position = error.span().map(|span| locate::line_and_column(text, span.start));
    let key = error.span().and_then(|span| locate::key_at(text, &span));
    let (problem, wrong, valid) = reword(error.message(), key.as_ref());
    let nearest = wrong.and_then(|wrong| nearest(&wrong, &valid));
    Box::new(Mistake {
        path: path.into(),
        line: position.map(|(line, _)| line),
        column: position.map(|(_, column)| column),
        key: key.map(|(path, _)| shown(&path)),
        problem,
        nearest,
        valid,
    })
    .into()
}

pub(crate) fn failed_check(invalid: &Invalid, text: &str, path: &Path) -> SettingsError {
    let position = locate::offset_of(text, &invalid.key).map(|offset| locate::line_and_column(text, offset));
    Box::new(Mistake {
        path: path.into(),
        line: position.map(|(line, _)| line),
        column: position.map(|(_, column)| column),
        problem: format!("`{}`: {}", shown(&invalid.key), shown(&invalid.problem)),
        key: Some(shown(&invalid.key)),
        nearest: None,
        valid: Vec::new(),
    })
    .into()
}

/// Problem, the wrong word and the words that would be right.
fn reword(message: &str, key: Option<&(String, String)>) -> (String, Option<String>, Vec<String>) {
    let path = key.map(|(path, _)| shown(path));
    if message.starts_with("unknown field `") {
        let wrong = key.map_or_else(|| quoted(message), |(_, name)| name.clone());
        let place = path.unwrap_or_else(|| shown(&wrong));
        return (format!("unknown key `{place}`"), Some(wrong), candidates(message));
    }
    if message.starts_with("unknown variant `") {
        let wrong = quoted(message);
        return (format!("{}unknown value `{}`", of(path), shown(&wrong)), Some(wrong), candidates(message));
    }
    if message.starts_with("missing field `") {
        let missing = shown(&quoted(message));
        return (format!("{}the key `{missing}` is missing", of(path)), None, Vec::new());
    }
    if let Some((found, expected)) = type_mismatch(message) {
        return (
            format!("{}expected {}, found {}", of(path), plain(expected), shown(found)),
            None,
            Vec::new(),
        );
    }
    (format!("{}{}", of(path), shown(message)), None, Vec::new())
}

fn of(path: Option<String>) -> String {
    path.map(|path| format!("`{path}`: ")).unwrap_or_default()
}

/// `invalid type: FOUND, expected EXPECTED` and its relative for values.
fn type_mismatch(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let at = rest.rfind(", expected ")?;
    Some((&rest[..at], &rest[at + ", expected ".len()..]))
}

/// The type names of Rust in words.
fn plain(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "an array".into(),
        "a map" => "a table".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other => shown(other),
    }
}

/// The first word between backticks; the words that follow `, expected` are not part of it.
fn quoted(message: &str) -> String {
    let subject = message.rfind("`, ").map_or(message, |at| &message[..=at]);
    let start = subject.find('`').map_or(0, |at| at + 1);
    let end = subject.rfind('`').filter(|end| *end >= start).unwrap_or(subject.len());
    let first = message.find("`, expected ").filter(|at| *at >= start).unwrap_or(end);
    message[start..first].to_owned()
}

fn candidates(message: &str) -> Vec<String> {
    let Some(at) = message.rfind("`, expected ") else { return Vec::new() };
    message[at + 1..].split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn nearest(wrong: &str, valid: &[String]) -> Option<String> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    let likeness = |word: &String| strsim::jaro_winkler(&wrong, &word.to_lowercase().replace('-', "_"));
    valid
        .iter()
        .map(|word| (likeness(word), word))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word.clone())
}

fn shown(text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}
