//! Names of hosts and boots, checked once and safe to print ever after.

use std::fmt;

/// Longest accepted id, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// The id was empty, too long, or holds a character other than letters, digits, `.`, `_`, `:`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: use 1 to {MAX_ID_BYTES} ASCII letters, digits, '.', '_', ':' or '-'")]
pub struct IdError {
    what: &'static str,
}

/// Which host: the id in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(String);

/// Which boot of a host: the kernel's random boot id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(String);

/// Whether `text` may be an id: 1 to [`MAX_ID_BYTES`] ASCII letters, digits, `.`, `_`, `:`, `-`.
#[must_use]
pub fn is_valid_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(allowed)
}

impl HostId {
    /// Checks and wraps a host id.
    ///
    /// # Errors
    /// The text is not a valid id ([`is_valid_id`]).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if is_valid_id(text) { Ok(Self(text.to_owned())) } else { Err(IdError { what: "the host id" }) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl BootId {
    /// Checks and wraps a boot id.
    ///
    /// # Errors
    /// The text is not a valid id ([`is_valid_id`]).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if is_valid_id(text) { Ok(Self(text.to_owned())) } else { Err(IdError { what: "the boot id" }) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_nothing_that_could_disturb_a_terminal_or_a_sentence() {
        for good in ["a", "machine-0123", "0190c0de-0000-7000-8000-000000000001", "h.example:7"] {
            assert_eq!(HostId::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a\n", "\u{1b}[31m", "ü", &"x".repeat(129)] {
            assert!(HostId::parse(bad).is_err(), "{bad:?}");
            assert!(BootId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
