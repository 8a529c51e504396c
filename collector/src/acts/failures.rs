//! Who failed to sign in: the first of a kind at once, repetitions within a minute together.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use buildtrail_proto::{
    now,
    v1::{SignInFailed, collector_entry::Act},
};

use super::{Acts, printable};

/// Most different failures in a minute that are told apart.
const MAX_DIFFERENT: usize = 64;
/// What stands for the names of further ones.
const OTHERS: &str = "further names that are not listed one by one";

/// Failures since the last minute.
#[derive(Debug)]
pub(crate) struct Failures {
    acts: Acts,
    open: Mutex<HashMap<(String, String), SignInFailed>>,
}

impl Failures {
    pub(crate) fn new(acts: Acts) -> Self {
        Self { acts, open: Mutex::default() }
    }

    /// Notes that somebody who says to be `person` did not get in.
    pub(crate) fn add(&self, person: &str, reason: &str, peer: &str) {
        let person: String = printable(&person);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (person, reason.to_owned());
        let (key, at_once) = match open.len() {
            _ if open.contains_key(&key) => (key, false),
            ..MAX_DIFFERENT => (key, true),
            _ => ((OTHERS.to_owned(), reason.to_owned()), false),
        };
        let failed = SignInFailed {
            person: key.0.clone(),
            reason: key.1.clone(),
            count: 0,
            first: Some(now()),
            last: Some(now()),
            peer: printable(&peer),
        };
        if at_once {
            self.acts.record(Act::SignInFailed(SignInFailed { count: 1, ..failed.clone() }));
            open.insert(key, failed);
            return;
        }
        let failures = open.entry(key).or_insert(failed);
        failures.count += 1;
        failures.last = Some(now());
    }

    /// Writes the repetitions and begins a new minute.
    pub(crate) fn flush(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for failures in open.into_values().filter(|failures| failures.count > 0) {
            self.acts.record(Act::SignInFailed(failures));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_counts_and_floods_are_bounded() {
        let (acts, mut desk) = Acts::new();
        let failures = Failures::new(acts);
        for number in 0..1000 {
            failures.add("ann\n", "wrong", "192.0.2.1:5");
            failures.add(&format!("name {number}"), "wrong", "192.0.2.1:5");
        }
        failures.flush();
        let mut entries = Vec::new();
        while let Ok(noted) = desk.receiver.try_recv() {
            let Some(Act::SignInFailed(failed)) = noted.entry.act else { panic!("another act") };
            entries.push(failed);
        }
        assert_eq!(entries.iter().map(|failed| failed.count).sum::<u64>(), 2000);
        assert!(entries.len() <= MAX_DIFFERENT + 2, "{} entries", entries.len());
        assert_eq!(entries[0].person, "ann\\n");
    }
}
