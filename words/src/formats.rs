//! Answers for programs that people look at all the same: CSV that is no formula, JSON that does nothing on a terminal.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::display::{is_unsafe, safe};

/// What spreadsheets take for the beginning of a formula, also in their wide forms.
const FORMULA_SIGNS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Writes one line of CSV (RFC 4180, one line per record). Cells are made [`safe`], and none of them is a formula to a
/// spreadsheet: those that would be begin with an apostrophe.
///
/// # Errors
/// What the writer refuses.
pub fn csv_line<T: AsRef<str>>(out: &mut impl Write, cells: impl IntoIterator<Item = T>) -> io::Result<()> {
    for (column, cell) in cells.into_iter().enumerate() {
        if column > 0 {
            out.write_all(b",")?;
        }
        let cell = safe(cell.as_ref(), false);
        let guard = if cell.trim_start().starts_with(FORMULA_SIGNS) { "'" } else { "" };
        if cell.contains([',', '"', ';', '\'']) || cell.starts_with(' ') {
            write!(out, "\"{guard}{}\"", cell.replace('"', "\"\""))?;
        } else {
            write!(out, "{guard}{cell}")?;
        }
    }
    out.write_all(b"\r\n")
}

/// Writes one JSON document, without line breaks, in which characters that a terminal could act on are `\uXXXX`.
///
/// # Errors
/// What the writer refuses.
pub fn json(out: impl Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    Ok(value.serialize(&mut Serializer::with_formatter(out, TerminalSafe(CompactFormatter)))?)
}

/// The same document, safe to look at.
struct TerminalSafe(CompactFormatter);

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unsafe) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            let Some(character) = rest[at..].chars().next() else { break };
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_document_without_characters_a_terminal_acts_on() {
        let text = "a\u{9b}31m\u{202e}\u{1b}\u{7f}\u{e0041}\u{301}文\\x";
        let mut out = Vec::new();
        json(&mut out, text).unwrap();
        let json = String::from_utf8(out).unwrap();
        assert_eq!(json, r#""a\u009b31m\u202e\u001b\u007f\udb40\udc41\u0301文\\x""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn no_cell_is_a_formula_and_no_record_takes_two_lines() {
        for (cell, expected) in [
            ("plain", "plain"),
            ("=1+1", "'=1+1"),
            ("+cmd", "'+cmd"),
            ("-2", "'-2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
            (" =1", "\"' =1\""),
            ("\t=1", "\\t=1"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("a,b", "\"a,b\""),
            ("two\nlines", "two\\nlines"),
            ("\u{1b}[31m\0", "\\u{1b}[31m\\0"),
        ] {
            let mut out = Vec::new();
            csv_line(&mut out, [cell]).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\r\n"), "{cell:?}");
        }
    }
}
