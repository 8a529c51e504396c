//! Patterns of text: `*` stands for any text, `?` for one character, `\*`, `\?` and `\\` for themselves.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    Any,
    One,
    Char(char),
}

impl Pattern {
    /// Every text is a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            tokens.push(match char {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Char(chars.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\')),
                other => Token::Char(other),
            });
        }
        tokens.dedup_by(|one, other| (*one, *other) == (Token::Any, Token::Any));
        Self { tokens }
    }

    /// Whether the whole text is as the pattern says. Takes at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (mut token, mut rest) = (0, text);
        // Behind the latest `*`, and what it has not yet swallowed.
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let mut chars = rest.chars();
            match (self.tokens.get(token), chars.next()) {
                (Some(Token::Any), _) => {
                    token += 1;
                    retry = Some((token, rest));
                    continue;
                }
                (None, None) => return true,
                (Some(Token::One), Some(_)) => {
                    (token, rest) = (token + 1, chars.as_str());
                    continue;
                }
                (Some(Token::Char(wanted)), Some(found)) if *wanted == found => {
                    (token, rest) = (token + 1, chars.as_str());
                    continue;
                }
                _ => {}
            }
            let Some((behind, kept)) = retry else { return false };
            let mut kept = kept.chars();
            if kept.next().is_none() {
                return false;
            }
            (token, rest) = (behind, kept.as_str());
            retry = Some((behind, rest));
        }
    }

    /// The only text that matches, if there is only one.
    #[must_use]
    pub fn exact(&self) -> Option<String> {
        let char = |token: &Token| match token {
            Token::Char(char) => Some(*char),
            Token::Any | Token::One => None,
        };
        self.tokens.iter().map(char).collect()
    }

    /// What every match begins with.
    #[must_use]
    pub fn prefix(&self) -> String {
        let char = |token: &Token| match token {
            Token::Char(char) => Some(*char),
            Token::Any | Token::One => None,
        };
        self.tokens.iter().map_while(char).collect()
    }
}

/// The pattern that only `text` matches.
#[must_use]
pub fn exactly(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

/// Whether `needle`, of which ASCII letters must be lower case, is in `text`, whatever the case of its ASCII letters.
#[must_use]
pub fn contains_ignoring_case(text: &[u8], needle: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else { return true };
    let upper = first.to_ascii_uppercase();
    let Some(last) = text.len().checked_sub(needle.len()) else { return false };
    (0..=last).any(|at| {
        (text[at] == *first || text[at] == upper) && text[at..at + needle.len()].eq_ignore_ascii_case(needle)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_text() {
        for (pattern, matching, others) in [
            ("acme/*", &["acme/", "acme/widgets", "acme/a/b"][..], &["acme", "xacme/w"][..]),
            ("*.example.com", &["a.example.com", ".example.com"], &["example.com", "a.example.com.evil"]),
            ("a?c", &["abc", "aäc"], &["ac", "abbc"]),
            ("*a*b*", &["ab", "xaxbx"], &["ba", "a"]),
            ("", &[""], &["a"]),
            ("*", &["", "x"], &[]),
            (r"\*", &["*"], &["a", ""]),
            (r"C:\dir\\x", &[r"C:\dir\x"], &[r"C:\dir\\x"]),
            ("**x", &["x", "ax"], &["xa"]),
        ] {
            for text in matching {
                assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
            }
            for text in others {
                assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
            }
        }
        assert_eq!(Pattern::new(r"a\*b").exact().as_deref(), Some("a*b"));
        assert_eq!((Pattern::new("ab*c").exact(), Pattern::new("ab*c").prefix()), (None, "ab".to_owned()));
    }

    #[test]
    fn any_text_can_be_asked_for_exactly() {
        for text in ["", "a", "*", r"\", r"\*", r"a\\?b", "ä*"] {
            assert_eq!(Pattern::new(&exactly(text)).exact().as_deref(), Some(text));
        }
    }

    #[test]
    fn contained_text_is_found_in_any_case() {
        assert!(contains_ignoring_case(b"AWS shared", b"aws"));
        assert!(contains_ignoring_case(b"xxAwS", b"aws"));
        assert!(contains_ignoring_case(b"", b""));
        assert!(!contains_ignoring_case(b"aw", b"aws"));
    }
}
