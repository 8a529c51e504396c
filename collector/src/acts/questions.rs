//! Who asked what: the first of a kind at once, repetitions within a minute together.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use buildtrail_proto::{
    Timestamp, now,
    v1::{ReaderAsked, collector_entry::Act},
};

use super::{Acts, printable};

/// Most different questions in a minute that are told apart.
const MAX_DIFFERENT: usize = 256;
/// What stands for further ones.
const OTHERS: &str = "further questions that are not listed one by one";

/// Questions since the last minute.
#[derive(Debug)]
pub(crate) struct Questions {
    acts: Acts,
    open: Mutex<HashMap<Question, Repetitions>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    reader: String,
    call: &'static str,
    what: String,
}

#[derive(Debug, Default)]
struct Repetitions {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Questions {
    pub(crate) fn new(acts: Acts) -> Self {
        Self { acts, open: Mutex::default() }
    }

    /// Notes that `reader`, by name, made `call` and asked for `what`, in words.
    pub(crate) fn asked(&self, reader: &str, call: &'static str, what: &str) {
        let question = Question { reader: reader.to_owned(), call, what: printable(&what) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get_mut(&question) {
            known.count(now());
        } else if open.len() < MAX_DIFFERENT {
            self.record(&question, &Repetitions { count: 1, first: Some(now()), last: Some(now()) });
            open.insert(question, Repetitions::default());
        } else {
            let others = Question { what: OTHERS.into(), ..question };
            open.entry(others).or_default().count(now());
        }
    }

    /// Writes the repetitions and begins a new minute.
    pub(super) fn flush(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        for (question, repetitions) in open {
            if repetitions.count > 0 {
                self.record(&question, &repetitions);
            }
        }
    }

    fn record(&self, question: &Question, repetitions: &Repetitions) {
        self.acts.record(Act::ReaderAsked(ReaderAsked {
            reader: question.reader.clone(),
            call: question.call.into(),
            what: question.what.clone(),
            count: repetitions.count,
            first: repetitions.first,
            last: repetitions.last,
        }));
    }
}

impl Repetitions {
    fn count(&mut self, now: Timestamp) {
        self.count += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_one_entry_and_floods_are_bounded() {
        let (acts, mut desk) = Acts::new();
        let questions = Questions::new(acts);
        let alice = "alice";
        for _ in 0..50 {
            questions.asked(alice, "Tail", "kinds secret.access");
        }
        for number in 0..10_000 {
            questions.asked(alice, "ListEvents", &format!("host {number}"));
        }
        questions.flush();
        let mut asked = Vec::new();
        while let Ok(noted) = desk.receiver.try_recv() {
            let Some(Act::ReaderAsked(question)) = noted.entry.act else { panic!("another act") };
            asked.push((question.call, question.what, question.count));
        }
        assert_eq!(asked.iter().map(|(.., count)| count).sum::<u64>(), 10_050, "every question counts");
        assert!(asked.contains(&("Tail".into(), "kinds secret.access".into(), 1)));
        assert!(asked.contains(&("Tail".into(), "kinds secret.access".into(), 49)));
        assert!(asked.len() <= MAX_DIFFERENT + 2, "{} entries", asked.len());
    }
}
