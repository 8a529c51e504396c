//! The one way from event text to a terminal. Every text of an event is hostile: it was chosen by whoever wrote the
//! build.

use unicode_width::UnicodeWidthChar as _;

/// What stands where text was cut.
const ELLIPSIS: char = '…';

/// Makes text safe to print on one line: control characters, line breaks, escape sequences, direction overrides,
/// invisible and combining characters appear as `\n`, `\u{1b}` and so on. A backslash is doubled so that escapes
/// cannot be imitated, unless the text came with `\xHH` escapes and doubled backslashes already
/// (`AuditEvent.text_escaped`).
#[must_use]
pub fn safe(text: &str, already_escaped: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' if already_escaped => shown.push('\\'),
            '\\' => shown.push_str("\\\\"),
            '"' | '\'' => shown.push(character),
            // Everything that is not plainly visible: Cc, Cf, Zl, Zp, Co, Cn, and combining marks.
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// Cuts safe text to `width` terminal columns, the last of them an ellipsis when something was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    let total: usize = text.chars().map(columns).sum();
    if total <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let mut shown: String = text
        .chars()
        .take_while(|character| {
            used += columns(*character);
            used <= width
        })
        .collect();
    shown.push(ELLIPSIS);
    shown
}

/// Terminal columns that safe text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(character: char) -> usize {
    character.width().unwrap_or(1)
}

/// Whether a character must not reach a terminal raw, not even inside JSON, where it can be written as `\uXXXX`.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character == '\u{7f}' || (!character.is_ascii() && character.escape_debug().len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_shown_and_does_nothing() {
        for (text, expected) in [
            ("plain path/with space", "plain path/with space"),
            ("naïve 文字", "naïve 文字"),
            ("it's \"quoted\"", "it's \"quoted\""),
            ("two\nlines\r\tand tab", "two\\nlines\\r\\tand tab"),
            ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("nul\0del\u{7f}", "nul\\0del\\u{7f}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("line\u{2028}paragraph\u{2029}", "line\\u{2028}paragraph\\u{2029}"),
            ("e\u{301}\u{301}\u{301}", "e\\u{301}\\u{301}\\u{301}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("imitated \\u{1b}", "imitated \\\\u{1b}"),
        ] {
            assert_eq!(safe(text, false), expected, "{text:?}");
        }
        assert_eq!(safe("byte \\xff, backslash \\\\", true), "byte \\xff, backslash \\\\");
    }

    #[test]
    fn long_text_is_cut_to_its_column() {
        for (text, width, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("文字文字", 8, "文字文字"),
            ("文字文字", 7, "文字文…"),
            ("文字文字", 6, "文字…"),
            ("x", 0, "…"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, width), expected);
        }
        assert_eq!(cut(&"x".repeat(5000), 40).chars().count(), 40);
    }
}
