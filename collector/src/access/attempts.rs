//! How often somebody may try: counts per minute, in bounded memory.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// Keys that are counted at a time.
const MAX_KEYS: usize = 16_384;

/// Counts of the present span of time. When too many different ones try at once, further ones are refused: those
/// already known go on.
#[derive(Debug)]
pub(super) struct Attempts<K> {
    max: u32,
    span: i64,
    counts: Mutex<(i64, HashMap<K, u32>)>,
}

impl<K: Hash + Eq> Attempts<K> {
    /// At most `max` in each `span` of seconds.
    pub(super) fn new(max: u32, span: i64) -> Self {
        Self { max, span, counts: Mutex::default() }
    }

    /// Counts one; false: that was too many.
    pub(super) fn take(&self, key: K, now: i64) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let present = now / self.span;
        if counts.0 != present {
            *counts = (present, HashMap::new());
        }
        if counts.1.len() >= MAX_KEYS && !counts.1.contains_key(&key) {
            return false;
        }
        let count = counts.1.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= self.max
    }

    /// Whether one more would not be too many; counts nothing.
    pub(super) fn is_below(&self, key: &K, now: i64) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 != now / self.span || counts.1.get(key).is_none_or(|count| *count < self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_count_and_time_forgives() {
        let attempts = Attempts::new(2, 60);
        assert!(attempts.take("ann", 0) && attempts.take("ann", 59) && !attempts.take("ann", 59));
        assert!(
            !attempts.is_below(&"ann", 59) && attempts.is_below(&"bob", 59) && attempts.is_below(&"ann", 60)
        );
        assert!(attempts.take("bob", 59) && attempts.take("ann", 60));
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::new(2, 60);
        assert!((0..MAX_KEYS).all(|key| attempts.take(key, 0)));
        assert!(!attempts.take(MAX_KEYS, 0) && attempts.take(0, 0));
    }
}
