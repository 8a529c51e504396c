//! Random histories of a record directory on a disk that forgets: whatever is promised must be there afterwards.
//!
//! A history is one seed: it appends, syncs, rotates, rewrites, removes, is killed, loses power in the middle of
//! anything, and meets a disk that refuses. The model knows for each record which bytes it may have, and how far the
//! log has promised.

mod disk;

use std::{ops::Range, path::Path, sync::Arc};

use self::disk::{Forget, SimulatedDisk};
use super::{Entry, Limits, RecordIndex, RecordLog};

const DIRECTORY: &str = "/state/spool/records";
const LIMITS: Limits = Limits { max_record_bytes: 1024, segment_bytes: 150 };
const HISTORIES: u64 = 10_000;
const STEPS: u64 = 40;

/// The same numbers for the same seed (`SplitMix64`).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// What must hold, and the log that it must hold for.
struct History {
    random: Random,
    disk: Arc<SimulatedDisk>,
    log: Option<RecordLog>,
    /// What each record from the first on may be.
    records: Vec<Vec<Vec<u8>>>,
    /// Records before this one were promised to be on disk.
    promised: u64,
    /// Records before this one may be gone.
    removed: u64,
    /// Makes every record different.
    written: u64,
}

impl History {
    fn new(seed: u64, forget: Forget) -> Self {
        let disk = Arc::new(SimulatedDisk::new(!seed, forget));
        let random = Random(seed);
        Self { random, disk, log: None, records: Vec::new(), promised: 0, removed: 0, written: 0 }
    }

    /// Runs it to its end; the first broken promise, if there is one.
    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            if self.log.is_none() {
                self.open()?;
            }
            self.step()?;
        }
        self.restart();
        self.open()
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(20) {
            0..9 => self.append(),
            9..13 => self.sync(),
            13 => self.rotate(),
            14 => self.rewrite()?,
            15 => self.remove(),
            // Killed: the disk keeps what it was given.
            16 => self.log = None,
            17 => self.restart(),
            18 => self.disk.cut_power_after(self.random.below(12)),
            _ => self.disk.refuse_one_in(self.random.below(3) * 6),
        }
        Ok(())
    }

    fn payload(&mut self) -> Vec<u8> {
        self.written += 1;
        let mut payload = self.written.to_le_bytes().to_vec();
        // Or the end of a torn record could be made good by what stood there before.
        let filling = u8::try_from(self.written % 251).unwrap();
        payload.resize(8 + self.random.index(40), filling);
        payload.push(!filling);
        payload
    }

    fn append(&mut self) {
        for _ in 0..=self.random.below(3) {
            let payload = self.payload();
            let Some(log) = self.log.as_mut() else { return };
            // Rotating makes a promise of its own.
            let appended = log.append(&payload);
            self.promised = self.promised.max(log.durable_end().0);
            match appended {
                Ok(index) => {
                    assert_eq!(index.0, self.records.len() as u64);
                    self.records.push(vec![payload]);
                }
                Err(_) if self.random.coin() => return self.fail(),
                Err(_) => {}
            }
        }
    }

    fn sync(&mut self) {
        let Some(log) = self.log.as_mut() else { return };
        match log.sync() {
            Ok(end) => {
                assert_eq!(end.0, self.records.len() as u64);
                self.promised = end.0;
            }
            Err(_) => self.fail(),
        }
    }

    fn rotate(&mut self) {
        let Some(log) = self.log.as_mut() else { return };
        let rotated = log.rotate();
        self.promised = self.promised.max(log.durable_end().0);
        if rotated.is_err() {
            self.fail();
        }
    }

    fn rewrite(&mut self) -> Result<(), String> {
        let Some(log) = self.log.as_mut() else { return Ok(()) };
        let closed: Vec<_> = log.closed_segments().collect();
        if closed.is_empty() {
            return Ok(());
        }
        let segment = closed[self.random.index(closed.len())];
        let changed: Vec<(usize, Vec<u8>)> = (segment.first.0..segment.end.0)
            .filter(|_| self.random.coin())
            .map(|index| {
                (usize::try_from(index).unwrap(), format!("rewritten in {}", self.written).into_bytes())
            })
            .collect();
        self.written += 1;
        let result = log.rewrite_segment(segment.first, |index, _| {
            changed.iter().find(|(at, _)| *at as u64 == index.0).map(|(_, new)| new.clone())
        });
        if matches!(result, Ok(false)) {
            return Err(format!("segment {} counts as damaged", segment.first));
        }
        for (at, new) in changed {
            if result.is_ok() {
                self.records[at] = vec![new];
            } else {
                self.records[at].push(new);
            }
        }
        Ok(())
    }

    fn remove(&mut self) {
        let index = self.random.below(self.promised + 1);
        let Some(log) = self.log.as_mut() else { return };
        self.removed = self.removed.max(index);
        // Refused or not: what was not asked to go must stay.
        let _ = log.remove_segments_before(RecordIndex(index));
    }

    /// After an error: the owner opens the log again, unless it is the power that failed.
    fn fail(&mut self) {
        if self.random.coin() { self.restart() } else { self.log = None }
    }

    fn restart(&mut self) {
        self.log = None;
        self.disk.restart();
    }

    /// Opens the log, after several refusals if need be, and compares it with the model.
    fn open(&mut self) -> Result<(), String> {
        let mut opened = None;
        for attempt in 0.. {
            if attempt > 3 {
                self.restart();
            }
            if let Ok(found) = RecordLog::open_on(self.disk.clone(), Path::new(DIRECTORY), LIMITS) {
                opened = Some(found);
                break;
            }
            if attempt > 8 {
                break;
            }
        }
        let (log, recovery) = opened.ok_or("the log cannot be opened on a disk that works")?;
        let said = recovery.quarantined.iter().map(ToString::to_string).collect::<Vec<_>>();
        if !said.is_empty() {
            return Err(format!("a crash counts as damage: {}", said.join("; ")));
        }
        self.check(&log)?;
        self.log = Some(log);
        Ok(())
    }

    fn check(&mut self, log: &RecordLog) -> Result<(), String> {
        let Range { start: first, end } = log.first().0..log.end().0;
        if end < self.promised {
            return Err(format!("{} records were promised, {end} are there", self.promised));
        }
        if end > self.records.len() as u64 {
            return Err(format!("{} records were written, {end} are there", self.records.len()));
        }
        if first > self.removed {
            return Err(format!("records from {} on were to stay, the first is {first}", self.removed));
        }
        self.records.truncate(usize::try_from(end).unwrap());
        self.promised = end;
        let mut expected = first;
        for entry in log.reader(log.first()).map_err(|error| error.to_string())? {
            match entry.map_err(|error| error.to_string())? {
                Entry::Quarantined(damage) => return Err(format!("damaged: {damage}")),
                Entry::Record { index, payload } => {
                    let known = &mut self.records[usize::try_from(index.0).unwrap()];
                    if index.0 != expected || !known.contains(&payload) {
                        return Err(format!("record {index} (expected {expected}) is another one"));
                    }
                    *known = vec![payload];
                    expected += 1;
                }
            }
        }
        if expected == end { Ok(()) } else { Err(format!("records {expected} to {end} are missing")) }
    }
}

fn first_broken(forget: Forget, seeds: Range<u64>) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| Some((seed, History::new(seed, forget).run().err()?)))
}

/// Where the seeds begin: another place each time, unless one is asked for.
fn first_seed() -> u64 {
    match std::env::var("BUILDTRAIL_SEED") {
        Ok(seed) => seed.parse().expect("BUILDTRAIL_SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() * HISTORIES,
    }
}

#[test]
fn what_was_promised_survives_ten_thousand_histories_of_a_forgetful_disk() {
    let first = first_seed();
    println!("histories {first} to {}; BUILDTRAIL_SEED=N repeats from N on", first + HISTORIES - 1);
    if let Some((seed, broken)) = first_broken(Forget::Nothing, first..first + HISTORIES) {
        panic!("history {seed}: {broken}; repeat it with BUILDTRAIL_SEED={seed}");
    }
}

#[test]
fn the_histories_notice_every_sync_that_is_left_out() {
    for forget in
        [Forget::Segments, Forget::Successors, Forget::Names, Forget::NamesAbove, Forget::WritingAgain]
    {
        let broken = first_broken(forget, 0..HISTORIES);
        let (seed, what) = broken.unwrap_or_else(|| panic!("nobody noticed {forget:?}"));
        println!("{forget:?} is noticed by history {seed}: {what}");
    }
}
