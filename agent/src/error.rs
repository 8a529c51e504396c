//! How errors are told: one line, with what caused them.

use std::error::Error;

/// Longest message, in characters: parts of it can come from a peer.
const MAX_SHOWN: usize = 300;

/// An error with all its causes in one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    printable(&text)
}

/// Text from elsewhere, cut and safe for a log line.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = text.chars().take(MAX_SHOWN);
    shown.map(|character| if character.is_control() { ' ' } else { character }).collect()
}
