//! Hostile bytes to text, as event.proto defines it.

/// Text of bytes, without loss: valid UTF-8 as it is, else `\xHH` for each bad byte and every backslash doubled.
#[must_use]
pub fn lossless(bytes: &[u8]) -> String {
    let mut notes = Notes::default();
    notes.text(bytes)
}

/// Whether text of an event was escaped or cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Some text holds `\xHH`.
    pub escaped: bool,
    /// Something was cut at its bound.
    pub truncated: bool,
}

impl Notes {
    /// Like [`lossless`], and notes what was done.
    pub fn text(&mut self, bytes: &[u8]) -> String {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return text.to_owned();
        }
        self.escaped = true;
        let mut text = String::with_capacity(bytes.len() + 16);
        for chunk in bytes.utf8_chunks() {
            text.push_str(&chunk.valid().replace('\\', "\\\\"));
            for byte in chunk.invalid() {
                text.push_str("\\x");
                text.push_str(&hex::encode_upper([*byte]));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_every_byte() {
        let table: [(&[u8], &str, bool); 5] = [
            (b"plain", "plain", false),
            ("line\n\u{1b}[31m\"quoted\" \\n ü".as_bytes(), "line\n\u{1b}[31m\"quoted\" \\n ü", false),
            (b"a\xffb", "a\\xFFb", true),
            (b"\\xFF\xff", "\\\\xFF\\xFF", true),
            (b"cut \xe2\x82", "cut \\xE2\\x82", true),
        ];
        for (bytes, expected, escaped) in table {
            let mut notes = Notes::default();
            assert_eq!(notes.text(bytes), expected);
            assert_eq!(notes.escaped, escaped);
        }
    }
}
