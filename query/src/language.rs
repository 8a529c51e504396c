//! Searches as text: `repo=acme/* kind=secret.access,credential.use secret~aws port>=1024 "free text" since=2h`.
//!
//! Words are separated by spaces and must all hold. A word is FIELD OPERATOR VALUES, where values are separated by commas
//! (any of them), or free text. What holds a space, a comma or a quote stands in `"quotes"`, in which `\"` is a quote and
//! `\\` a backslash.

use std::fmt::Write as _;

use buildtrail_proto::{
    Timestamp, now, timestamp_from_unix_nanos, unix_nanos,
    v1::{Condition, Operator, Search},
};

use crate::{
    Field, MAX_VALUE_BYTES,
    compiled::{Compiled, SearchError, field},
    field::nearest,
};

/// Longest search that is read, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// The text is no search.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct ParseError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Reads a search.
///
/// # Errors
/// Where it cannot be understood, and what is allowed there.
pub fn parse(text: &str) -> Result<Search, ParseError> {
    parse_at(text, now())
}

/// Reads a search in which `since=2h` means two hours before `now`.
///
/// # Errors
/// As [`parse`].
pub fn parse_at(text: &str, now: Timestamp) -> Result<Search, ParseError> {
    let mut parser = Parser { text, at: 0, now, search: Search::default() };
    if text.len() > MAX_TEXT {
        return Err(parser.error(0, "the search is too long"));
    }
    while parser.skip_spaces() {
        parser.word()?;
    }
    Compiled::new(&parser.search).map_err(|error| parser.error(0, &error))?;
    Ok(parser.search)
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    now: Timestamp,
    search: Search,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, at: usize, message: &(impl ToString + ?Sized)) -> ParseError {
        ParseError { column: self.text[..at].chars().count() + 1, message: message.to_string() }
    }

    /// Whether there is more.
    fn skip_spaces(&mut self) -> bool {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at < self.text.len()
    }

    fn word(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let letters =
            self.rest().bytes().take_while(|byte| byte.is_ascii_alphabetic() || *byte == b'_').count();
        let name = &self.text[start..start + letters];
        let Some((operator, length)) = operator(&self.text[start + letters..]) else {
            let free = self.value(true)?;
            self.free(free);
            return Ok(());
        };
        if name.is_empty() {
            let message =
                "a field is missing before the operator; free text with operators stands in \"quotes\"";
            return Err(self.error(start, message));
        }
        let name = name.to_owned();
        self.at = start + letters + length;
        if name == "since" || name == "until" {
            return self.time(&name, operator, start);
        }
        let field = field_or_time(&name).map_err(|error| self.error(start, &error))?;
        let values_at = self.at;
        let mut values = vec![self.value(false)?];
        while self.rest().starts_with(',') {
            self.at += 1;
            values.push(self.value(false)?);
        }
        let condition = Condition { field: field.name().to_owned(), operator: operator.into(), values };
        let alone = Search { r#where: vec![condition.clone()], ..Search::default() };
        Compiled::new(&alone).map_err(|error| self.error(values_at, &error))?;
        self.search.r#where.push(condition);
        Ok(())
    }

    fn free(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        if self.search.text.is_empty() {
            self.search.text = text;
        } else {
            let operator = Operator::Contains.into();
            self.search.r#where.push(Condition {
                field: Field::Text.name().into(),
                operator,
                values: vec![text],
            });
        }
    }

    fn time(&mut self, name: &str, operator: Operator, start: usize) -> Result<(), ParseError> {
        if operator != Operator::Equals {
            return Err(self.error(start, &format_args!("write {name}=TIME")));
        }
        let at = self.at;
        let text = self.value(false)?;
        let time = time(&text, self.now).ok_or_else(|| {
            self.error(at, "write a time as 2026-11-22T10:00Z, a day as 2026-11-22 (UTC), or how long ago: 30s, 15m, 2h, 1d, 1w")
        })?;
        let place = if name == "since" { &mut self.search.since } else { &mut self.search.until };
        if place.replace(time).is_some() {
            return Err(self.error(start, &format_args!("{name} is given twice")));
        }
        Ok(())
    }

    /// A value or free text, quoted or not.
    fn value(&mut self, free: bool) -> Result<String, ParseError> {
        let start = self.at;
        let Some(quoted) = self.rest().strip_prefix('"') else {
            let ends = |char: char| char.is_whitespace() || char == '"' || (char == ',' && !free);
            let length = self.rest().find(ends).unwrap_or(self.rest().len());
            let value = self.rest()[..length].to_owned();
            self.at += length;
            if self.rest().starts_with('"') {
                return Err(self.error(self.at, "a quote in the middle of a word; quote the whole value"));
            }
            return Ok(value);
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.at += 1 + at + 1;
                    let next = self.rest().chars().next();
                    if next.is_some_and(|next| !next.is_whitespace() && (free || next != ',')) {
                        return Err(self.error(self.at, "a space is missing behind the quote"));
                    }
                    return Ok(value);
                }
                '\\' => match chars.clone().next() {
                    Some((_, escaped @ ('"' | '\\'))) => {
                        value.push(escaped);
                        chars.next();
                    }
                    _ => value.push('\\'),
                },
                other => value.push(other),
            }
        }
        Err(self.error(start, "the quote is not closed"))
    }
}

fn field_or_time(name: &str) -> Result<Field, SearchError> {
    field(name).map_err(|error| match error {
        SearchError::UnknownField { field, .. } => {
            let words = Field::ALL.iter().map(|field| field.name()).chain(["since", "until"]);
            SearchError::UnknownField { nearest: nearest(&field, words).map(str::to_owned), field }
        }
        other => other,
    })
}

/// The operator at the beginning of a text, and its length.
fn operator(text: &str) -> Option<(Operator, usize)> {
    let known = [
        ("!=", Operator::NotEquals),
        (">=", Operator::AtLeast),
        ("<=", Operator::AtMost),
        ("=", Operator::Equals),
        ("~", Operator::Contains),
    ];
    known.into_iter().find(|(sign, _)| text.starts_with(sign)).map(|(sign, operator)| (operator, sign.len()))
}

/// A time, a day, or how long ago.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(timestamp_from_unix_nanos(time.as_nanosecond()));
    }
    // Without seconds: 2026-11-22T10:00Z; and without a time of day.
    if let Some(minute) = text.strip_suffix('Z').filter(|minute| minute.len() == "2026-11-22T10:00".len())
        && let Ok(time) = format!("{minute}:00Z").parse::<jiff::Timestamp>()
    {
        return Some(timestamp_from_unix_nanos(time.as_nanosecond()));
    }
    if text.len() == "2026-11-22".len()
        && let Ok(time) = format!("{text}T00:00:00Z").parse::<jiff::Timestamp>()
    {
        return Some(timestamp_from_unix_nanos(time.as_nanosecond()));
    }
    let (at, unit) = text.char_indices().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let count: u32 = text[..at].parse().ok()?;
    Some(timestamp_from_unix_nanos(unix_nanos(&now) - i128::from(count) * seconds * 1_000_000_000))
}

/// The search as text, which [`parse`] reads again.
#[must_use]
pub fn to_text(search: &Search) -> String {
    let mut words = Vec::new();
    for condition in &search.r#where {
        let sign = match condition.operator() {
            Operator::Unspecified | Operator::Equals => "=",
            Operator::NotEquals => "!=",
            Operator::Contains => "~",
            Operator::AtLeast => ">=",
            Operator::AtMost => "<=",
        };
        let values: Vec<String> = condition.values.iter().map(|value| quoted(value, false)).collect();
        words.push(format!("{}{sign}{}", condition.field, values.join(",")));
    }
    for (name, time) in [("since", &search.since), ("until", &search.until)] {
        if let Some(time) = time {
            let nanos = unix_nanos(time);
            let text = jiff::Timestamp::from_nanosecond(nanos)
                .map_or_else(|_| nanos.to_string(), |it| it.to_string());
            words.push(format!("{name}={text}"));
        }
    }
    if !search.text.is_empty() {
        words.push(quoted(&search.text, true));
    }
    words.join(" ")
}

/// In quotes where it needs them.
fn quoted(value: &str, always: bool) -> String {
    let special = |char: char| char.is_whitespace() || matches!(char, '"' | ',');
    if !always && !value.is_empty() && !value.contains(special) {
        return value.to_owned();
    }
    let mut text = String::with_capacity(value.len().min(MAX_VALUE_BYTES) + 2);
    text.push('"');
    for char in value.chars() {
        let escape = if matches!(char, '"' | '\\') { "\\" } else { "" };
        let _ = write!(text, "{escape}{char}");
    }
    text.push('"');
    text
}

#[cfg(test)]
#[path = "language_tests.rs"]
mod tests;
