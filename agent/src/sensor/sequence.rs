//! Finds the numbers that never came: each hook numbers its records on each CPU, lost ones too.
//!
//! Two programs on one CPU can be interrupted between taking a number and taking room in the ring, so numbers come nearly in
//! order; what is late is waited for. Must never call a record lost that can still come, nor forget one that cannot.

use std::collections::{BTreeMap, HashMap};

use buildtrail_agent_abi::Hook;

use super::records::Place;
use crate::clock::BootTime;

/// How long a number that was passed over can still come, in nanoseconds: programs run for microseconds, and the rings are
/// read many times meanwhile.
const PATIENCE: u64 = 1_000_000_000;

/// Numbers that never came, in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of which hook.
    pub hook: &'static str,
    /// On which CPU.
    pub cpu: u32,
    /// The first number that is missing.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The record before was made at this time; zero when there was none.
    pub after: BootTime,
    /// The record behind was made at this time.
    pub before: BootTime,
}

#[derive(Debug)]
struct Hole {
    last: u64,
    after: BootTime,
    before: BootTime,
}

/// The numbers of one hook on one CPU.
#[derive(Debug, Default)]
struct Stream {
    /// Numbers below belong to the time before this agent.
    begins: u64,
    highest: u64,
    highest_at: BootTime,
    /// By their first missing number.
    holes: BTreeMap<u64, Hole>,
}

/// The numbers of all hooks on all CPUs.
#[derive(Debug, Default)]
pub struct Sequences {
    streams: HashMap<(u16, u32), Stream>,
    /// The programs have been running: the first number that comes need not be 1.
    resumed: bool,
}

impl Sequences {
    /// Nothing has come yet. `resumed`: the programs have been running before.
    #[must_use]
    pub fn new(resumed: bool) -> Self {
        Self { streams: HashMap::new(), resumed }
    }

    /// Notes a record that came. False when its number came before, which no program gives twice.
    #[must_use]
    pub fn take(&mut self, place: Place, time: BootTime) -> bool {
        let new = || {
            let begins = if self.resumed { place.sequence } else { 1 };
            Stream { begins, highest: begins.saturating_sub(1), ..Stream::default() }
        };
        self.streams.entry((place.hook, place.cpu)).or_insert_with(new).take(place.sequence, time)
    }

    /// Gaps that nothing can fill any more, and forgets them.
    pub fn gaps(&mut self, now: BootTime) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for ((hook, cpu), stream) in &mut self.streams {
            let Some(hook) = Hook::ALL.into_iter().find(|known| *known as u16 == *hook) else { continue };
            let settled = |hole: &Hole| now.since(hole.before) >= PATIENCE;
            gaps.extend(stream.holes.extract_if(.., |_, hole| settled(hole)).map(|(first, hole)| Gap {
                hook: hook.name(),
                cpu: *cpu,
                first,
                last: hole.last,
                after: hole.after,
                before: hole.before,
            }));
        }
        gaps.sort_by_key(|gap| (gap.before, gap.hook, gap.cpu, gap.first));
        gaps
    }
}

impl Stream {
    fn take(&mut self, number: u64, time: BootTime) -> bool {
        if number > self.highest {
            if number > self.highest + 1 {
                let hole = Hole { last: number - 1, after: self.highest_at, before: time };
                self.holes.insert(self.highest + 1, hole);
            }
            (self.highest, self.highest_at) = (number, time);
            true
        } else {
            self.fill(number) || number < self.begins
        }
    }

    /// A number that was passed over has come: what is left of its hole are up to two. False when it was not passed over.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, hole)) = self.holes.range(..=number).next_back() else { return false };
        if hole.last < number {
            return false;
        }
        let Some(hole) = self.holes.remove(&first) else { return false };
        if first < number {
            let left = Hole { last: number - 1, after: hole.after, before: hole.before };
            self.holes.insert(first, left);
        }
        if number < hole.last {
            self.holes.insert(number + 1, hole);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(numbers: &[u64]) -> Sequences {
        let mut sequences = Sequences::default();
        for (at, &sequence) in numbers.iter().enumerate() {
            let place = Place { hook: Hook::Connect4 as u16, cpu: 1, sequence };
            let _ = sequences.take(place, BootTime(at as u64 + 1));
        }
        sequences
    }

    fn missing(numbers: &[u64]) -> Vec<(u64, u64)> {
        let gaps = taken(numbers).gaps(BootTime(10 * PATIENCE));
        gaps.into_iter().map(|gap| (gap.first, gap.last)).collect()
    }

    #[test]
    fn what_never_came_is_named_and_what_came_late_is_not() {
        assert_eq!(missing(&[1, 2, 3]), []);
        assert_eq!(missing(&[1, 3, 2, 4]), []);
        assert_eq!(missing(&[3]), [(1, 2)], "the first ones too");
        assert_eq!(missing(&[1, 9, 5, 3]), [(2, 2), (4, 4), (6, 8)]);
        assert_eq!(missing(&[1, 2, 2, 1, 3]), [], "a number twice fills nothing");
    }

    #[test]
    fn a_number_that_came_before_is_told() {
        let news = |sequences: &mut Sequences, sequence| {
            sequences.take(Place { hook: Hook::Exec as u16, cpu: 0, sequence }, BootTime(1))
        };
        let mut sequences = Sequences::default();
        assert_eq!(
            [1, 3, 2, 2, 3, 4].map(|n| news(&mut sequences, n)),
            [true, true, true, false, false, true]
        );
        let mut resumed = Sequences::new(true);
        assert_eq!([7, 6, 7].map(|n| news(&mut resumed, n)), [true, true, false], "6 is from before");
    }

    #[test]
    fn programs_that_have_been_running_may_begin_with_any_number() {
        let mut sequences = Sequences::new(true);
        for sequence in [7, 9] {
            assert!(sequences.take(Place { hook: Hook::Exec as u16, cpu: 0, sequence }, BootTime(1)));
        }
        let gaps = sequences.gaps(BootTime(2 * PATIENCE));
        assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(8, 8)]);
    }

    #[test]
    fn a_gap_is_reported_once_after_a_while_and_with_its_neighbours() {
        let mut sequences = taken(&[1, 4]);
        assert_eq!(sequences.gaps(BootTime(3)), []);
        let gap = Gap {
            hook: Hook::Connect4.name(),
            cpu: 1,
            first: 2,
            last: 3,
            after: BootTime(1),
            before: BootTime(2),
        };
        assert_eq!(sequences.gaps(BootTime(2 + PATIENCE)), [gap]);
        assert_eq!(sequences.gaps(BootTime(3 + PATIENCE)), []);
    }
}
