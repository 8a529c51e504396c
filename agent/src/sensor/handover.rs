//! From the programs of an earlier agent to this one's: nothing missed, nothing twice.
//!
//! The new programs are attached before the old ones are detached, so what happens in between is reported by both. Each
//! record of the new programs from that time that equals one of the old ones, but for its time, is the same event.

use aya::maps::{Map, MapData, RingBuf};
use tracing::warn;

use super::{
    pins::Predecessor,
    records::{self, Record},
};
use crate::clock::BootTime;

/// How far the times of one event can be apart in two programs on the same hook, in nanoseconds.
const SAME_EVENT: u64 = 50_000_000;

/// What earlier programs left in their rings.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// In the order of the rings.
    pub records: Vec<Record>,
    /// Records of a build whose layout is another, which nobody can read any more.
    pub unreadable: u64,
}

impl Inheritance {
    /// Reads what an earlier agent, whose programs are detached, has not; then takes away what it left.
    pub fn take_from(&mut self, predecessor: Predecessor) {
        for name in ["CRITICAL", "BULK"] {
            match predecessor.map(name) {
                Ok(ring) => self.take(ring, predecessor.readable),
                Err(error) => warn!(error, "an earlier agent's ring cannot be opened"),
            }
        }
        predecessor.remove();
    }

    /// Reads a ring to its end.
    fn take(&mut self, ring: Map, readable: bool) {
        let ring: Result<RingBuf<MapData>, _> = RingBuf::try_from(ring);
        let Ok(mut ring) = ring.inspect_err(|error| warn!(%error, "an earlier agent's ring cannot be read"))
        else {
            return;
        };
        while let Some(item) = ring.next() {
            match records::decode(&item) {
                Ok((record, _)) if readable => self.records.push(record),
                _ => self.unreadable += 1,
            }
        }
    }
}

/// Knows what was reported by both.
#[derive(Debug, Default)]
pub struct Overlap {
    /// Of the old programs, from the time when both were attached.
    old: Vec<Record>,
    until: BootTime,
}

impl Overlap {
    /// Both were attached from `from` to `until`.
    #[must_use]
    pub fn new(inherited: &[Record], from: BootTime, until: BootTime) -> Self {
        let old = inherited.iter().filter(|record| record.time >= from).cloned().collect();
        Self { old, until }
    }

    /// Whether the old programs have reported this event of the new ones.
    pub fn is_known(&mut self, record: &Record) -> bool {
        if self.old.is_empty() || record.time.0 > self.until.0 + SAME_EVENT {
            return false;
        }
        let same = |old: &Record| {
            old.process == record.process
                && old.what == record.what
                && old.time.0.abs_diff(record.time.0) < SAME_EVENT
        };
        match self.old.iter().position(same) {
            Some(at) => {
                self.old.remove(at);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        process::ProcessId,
        sensor::records::{Users, What},
    };

    fn exit(pid: u32, time: u64) -> Record {
        Record {
            time: BootTime(time),
            process: ProcessId { pid, start: BootTime(1) },
            users: Users::default(),
            what: What::Exit { core_dumped: false },
        }
    }

    #[test]
    fn what_both_reported_counts_once_and_the_rest_stays() {
        let old = [exit(1, 10), exit(2, 100), exit(3, 101), exit(3, 102)];
        let mut overlap = Overlap::new(&old, BootTime(50), BootTime(200));
        assert!(!overlap.is_known(&exit(1, 60)), "the old programs' record is from before");
        assert!(overlap.is_known(&exit(2, 103)));
        assert!(!overlap.is_known(&exit(2, 104)), "it happened twice");
        assert!(overlap.is_known(&exit(3, 103)) && overlap.is_known(&exit(3, 104)));
        assert!(!overlap.is_known(&exit(4, 105)), "only the new programs saw it");
    }

    #[test]
    fn after_the_overlap_nothing_is_compared() {
        let mut overlap = Overlap::new(&[exit(2, 100)], BootTime(50), BootTime(200));
        assert!(!overlap.is_known(&exit(2, 201 + SAME_EVENT)));
    }
}
