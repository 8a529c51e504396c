//! The one way from event text to a page. Text of an event was chosen by whoever wrote the build.

use buildtrail_words::display;
use maud::{Markup, Render, html};

/// Characters of one value in a table.
const IN_TABLE: usize = 160;
/// Characters of one value where it is the matter.
const WHOLE: usize = 4000;
/// Longest value that a link carries; browsers and proxies refuse much longer ones.
const MAX_LINKED: usize = 1024;

/// A text of an event, shown with everything invisible written out, and bounded.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    text: &'a str,
    /// `AuditEvent.text_escaped`.
    escaped: bool,
    /// Made safe already.
    safe: bool,
    max: usize,
}

/// A value in a table.
pub(super) fn short(text: &str) -> Text<'_> {
    Text { text, escaped: false, safe: false, max: IN_TABLE }
}

/// A value where it is the matter.
pub(super) fn whole(text: &str) -> Text<'_> {
    Text { max: WHOLE, ..short(text) }
}

/// A sentence of [`buildtrail_words`], in which job text is safe already.
pub(super) fn sentence(text: &str) -> Text<'_> {
    Text { safe: true, max: 600, ..short(text) }
}

impl Text<'_> {
    /// The event's text came with `\xHH` escapes.
    pub(super) fn escaped(self, escaped: bool) -> Self {
        Self { escaped, ..self }
    }

    /// Safe plain text, for places without markup.
    pub(super) fn plain(self) -> String {
        let (mut shown, cut) = self.parts();
        if cut.is_some() {
            shown.push('…');
        }
        shown
    }

    /// What is shown, and how many characters there are when that is not all.
    fn parts(self) -> (String, Option<usize>) {
        let beginning: String = self.text.chars().take(self.max).collect();
        let cut = (beginning.len() < self.text.len()).then(|| self.text.chars().count());
        let shown = if self.safe { beginning } else { display::safe(&beginning, self.escaped) };
        (shown, cut)
    }
}

impl Render for Text<'_> {
    fn render(&self) -> Markup {
        let (shown, cut) = self.parts();
        html! {
            bdi { (shown) }
            @if let Some(characters) = cut {
                span.cut title={ "Cut here; the whole text has " (characters) " characters" } { "…" }
            }
        }
    }
}

/// Whether a link may carry this value.
pub(super) fn is_linkable(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_LINKED
}

/// `1,234,567`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 job`, `2 jobs`.
pub(super) fn counted(count: u64, one: &str) -> String {
    let plural = if count == 1 {
        ""
    } else if one.ends_with("ss") || one.ends_with("ch") {
        "es"
    } else {
        "s"
    };
    format!("{} {one}{plural}", number(count))
}

/// `512 B`, `14.2 KiB`, `3.0 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_visible_bounded_and_no_markup() {
        let page = html! { (short("<script>alert(1)</script>\u{202e}\0\u{1b}[31m")) }.into_string();
        assert_eq!(page, "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\0\\u{1b}[31m</bdi>");
        let page = html! { (short(&"é".repeat(65_536))) }.into_string();
        assert!(page.len() < 600 && page.contains("65536 characters"), "{page}");
        assert_eq!(short(&"x".repeat(200)).plain().chars().count(), IN_TABLE + 1);
    }

    #[test]
    fn numbers_and_sizes_are_for_people() {
        for (value, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), expected);
        }
        for (value, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (14_541, "14.2 KiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(
            (counted(1, "loss"), counted(2, "loss"), counted(0, "job")),
            ("1 loss".into(), "2 losses".into(), "0 jobs".into())
        );
    }
}
