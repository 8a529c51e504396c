//! The span of time that is asked about.

use buildtrail_proto::{Timestamp, unix_nanos};

/// From when to when; open where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Span {
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

impl Span {
    /// Whether `time` lies in it.
    #[must_use]
    pub fn holds(&self, time: &Timestamp) -> bool {
        self.touches(Some(time), Some(time))
    }

    /// Whether something between `first` and `last` (open where unknown) can lie in it.
    pub(super) fn touches(&self, first: Option<&Timestamp>, last: Option<&Timestamp>) -> bool {
        let ended_before = is_before(last, self.since.as_ref());
        let began_after = is_before(self.until.as_ref(), first);
        !ended_before && !began_after
    }
}

fn is_before(one: Option<&Timestamp>, other: Option<&Timestamp>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if unix_nanos(one) < unix_nanos(other))
}

/// Earliest and latest of some times.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Extent {
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
}

impl Extent {
    pub(super) fn add(&mut self, time: &Timestamp) {
        if self.first.is_none_or(|first| unix_nanos(time) < unix_nanos(&first)) {
            self.first = Some(*time);
        }
        if self.last.is_none_or(|last| unix_nanos(time) > unix_nanos(&last)) {
            self.last = Some(*time);
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        for time in [other.first, other.last].into_iter().flatten() {
            self.add(&time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn both_ends_of_a_span_belong_to_it() {
        let span = Span { since: Some(at(10)), until: Some(at(20)) };
        let inside: Vec<_> = (8..23).filter(|time| span.holds(&at(*time))).collect();
        assert_eq!(inside, (10..=20).collect::<Vec<_>>());
        assert!(Span::default().holds(&at(0)));
        assert!(span.touches(Some(&at(1)), Some(&at(30))) && span.touches(None, Some(&at(12))));
        assert!(!span.touches(Some(&at(1)), Some(&at(9))) && !span.touches(Some(&at(21)), None));
    }

    #[test]
    fn an_extent_grows_both_ways() {
        let mut extent = Extent::default();
        for time in [5, 3, 9] {
            extent.add(&at(time));
        }
        let mut joined = Extent { first: Some(at(4)), last: Some(at(11)) };
        joined.join(&extent);
        joined.join(&Extent::default());
        assert_eq!(joined, Extent { first: Some(at(3)), last: Some(at(11)) });
    }
}
