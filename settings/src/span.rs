//! Lengths of time as people write them: `90s`, `15m`, `24h`, `30d`, `2w`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Whole seconds, written as a number and s, m, h, d or w.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(u64);

/// Text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number and a unit, as in \"90s\", \"15m\", \"24h\", \"30d\" or \"2w\"")]
pub struct SpanError;

impl Span {
    /// This many seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let unit = text.chars().next_back().ok_or(SpanError)?;
        let (_, seconds) = UNITS.iter().find(|(letter, _)| *letter == unit).ok_or(SpanError)?;
        let number = &text[..text.len() - unit.len_utf8()];
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SpanError);
        }
        let count: u32 = number.parse().map_err(|_| SpanError)?;
        Ok(Self(u64::from(count) * seconds))
    }
}

impl fmt::Display for Span {
    /// In the largest unit that leaves no rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, seconds): &&(char, u64)| self.0 > 0 && self.0.is_multiple_of(*seconds);
        let (letter, seconds) = UNITS.iter().find(fits).unwrap_or(&('s', 1));
        write!(f, "{}{letter}", self.0 / seconds)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_in_the_largest_whole_unit() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("60s", 60, "1m"),
            ("24h", 86_400, "1d"),
            ("30d", 2_592_000, "30d"),
            ("14d", 1_209_600, "2w"),
            ("0s", 0, "0s"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.seconds(), span.to_string().as_str()), (seconds, shown), "{text}");
        }
        for wrong in ["", "s", "10", "-1s", "+1s", "1.5h", "1y", "9999999999s", "1 h", "1µ"] {
            assert_eq!(wrong.parse::<Span>(), Err(SpanError), "{wrong}");
        }
    }
}
