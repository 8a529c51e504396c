//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Pauses that double from a quarter of a second to a minute, shortened at random by up to half so that many hosts do
/// not return in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    random: RandomState,
}

impl Backoff {
    /// Pause between attempts of an uplink that must stop.
    pub(super) const WHILE_STOPPING: Duration = Duration::from_millis(200);
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_mins(1);

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = Self::FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.shortened(doubled.min(Self::LONGEST))
    }

    /// The longest pause.
    pub(super) fn longest(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.shortened(Self::LONGEST)
    }

    /// A random part of one, 0 to 1.
    pub(super) fn part(&self) -> f64 {
        f64::from(u32::try_from(self.random.hash_one("part") % 1000).unwrap_or_default()) / 1000.0
    }

    fn shortened(&self, pause: Duration) -> Duration {
        let cut = u32::try_from(self.random.hash_one(self.failures) % 500).unwrap_or_default();
        pause * (1000 - cut) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_shortened_by_less_than_half() {
        let mut backoff = Backoff::default();
        for milliseconds in [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let full = Duration::from_millis(milliseconds);
            let pause = backoff.next();
            assert!(pause <= full && pause > full / 2, "{pause:?} for {full:?}");
        }
    }
}
