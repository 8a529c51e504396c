//! What was found so far: which indicator, in which job, when.

use std::collections::HashMap;

use buildtrail_proto::v1::{AuditEvent, Job};

use super::needles::Place;

/// Most contacts that are kept: an indicator that everything touches says nothing.
const MAX_CONTACTS: usize = 2_000_000;
/// Different values that are shown of an indicator.
const MAX_VALUES: usize = 10;

/// A job, or what happened on a host outside of jobs.
#[derive(Debug, Clone)]
pub(super) struct Where {
    pub(super) host_id: String,
    pub(super) job: Option<Job>,
}

/// When, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) count: u64,
    /// Nanoseconds since 1970.
    pub(super) first: i64,
    pub(super) last: i64,
}

impl Times {
    pub(super) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Conditions of one alternative that were met in one place.
#[derive(Debug)]
struct Met {
    /// A bit for each.
    conditions: u32,
    times: Times,
}

/// A hunt has found too much to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    wheres: Vec<Where>,
    numbers: HashMap<(String, String), usize>,
    met: HashMap<(usize, usize, usize), Met>,
    values: HashMap<usize, Vec<String>>,
}

/// An indicator in a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contact {
    pub(super) indicator: usize,
    /// Index into [`Contacts::wheres`].
    pub(super) place: usize,
    pub(super) times: Times,
}

impl Contacts {
    /// Notes that the events of `of` met a condition.
    pub(super) fn add(
        &mut self,
        condition: Place,
        of: &AuditEvent,
        value: &str,
        times: Times,
    ) -> Result<(), TooMany> {
        let number = self.place(of);
        let bit = 1_u32.checked_shl(u32::try_from(condition.condition).unwrap_or(u32::MAX)).unwrap_or(0);
        let key = (condition.indicator, condition.alternative, number);
        self.met
            .entry(key)
            .and_modify(|met| {
                met.conditions |= bit;
                met.times.add(times);
            })
            .or_insert(Met { conditions: bit, times });
        let shown = self.values.entry(condition.indicator).or_default();
        if shown.len() < MAX_VALUES && !shown.iter().any(|known| known == value) {
            shown.push(super::cut(value));
        }
        if self.met.len() > MAX_CONTACTS { Err(TooMany) } else { Ok(()) }
    }

    fn place(&mut self, of: &AuditEvent) -> usize {
        let job_id = of.job.as_ref().map(|job| job.job_id.clone()).unwrap_or_default();
        *self.numbers.entry((of.host_id.clone(), job_id)).or_insert_with(|| {
            self.wheres.push(Where { host_id: of.host_id.clone(), job: of.job.clone() });
            self.wheres.len() - 1
        })
    }

    pub(super) fn at(&self, place: usize) -> Option<&Where> {
        self.wheres.get(place)
    }

    /// Values that met conditions of an indicator, some of them.
    pub(super) fn values_of(&self, indicator: usize) -> Vec<String> {
        self.values.get(&indicator).cloned().unwrap_or_default()
    }

    /// The places where some alternative of an indicator is met as a whole; `conditions` says how many an alternative has.
    pub(super) fn whole(&self, conditions: impl Fn(usize, usize) -> usize) -> Vec<Contact> {
        let mut found: HashMap<(usize, usize), Times> = HashMap::new();
        for (&(indicator, alternative, place), met) in &self.met {
            let wanted = u32::try_from(conditions(indicator, alternative)).unwrap_or(u32::MAX);
            if met.conditions.count_ones() >= wanted {
                found.entry((indicator, place)).and_modify(|times| times.add(met.times)).or_insert(met.times);
            }
        }
        let contacts = found.into_iter();
        contacts.map(|((indicator, place), times)| Contact { indicator, place, times }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternative_counts_where_all_of_it_is_met_in_one_job() {
        let of = |host: &str, job: &str| AuditEvent {
            host_id: host.into(),
            job: Some(Job { job_id: job.into(), ..Job::default() }),
            ..AuditEvent::default()
        };
        let at = |condition| Place { indicator: 0, alternative: 0, condition };
        let times = |first, last| Times { count: 1, first, last };
        let mut contacts = Contacts::default();
        contacts.add(at(0), &of("h1", "a"), "x", times(5, 6)).unwrap();
        contacts.add(at(1), &of("h1", "b"), "y", times(1, 2)).unwrap();
        contacts.add(at(1), &of("h2", "a"), "y", times(1, 2)).unwrap();
        assert!(contacts.whole(|_, _| 2).is_empty());
        contacts.add(at(1), &of("h1", "a"), "y", times(3, 9)).unwrap();
        let found = contacts.whole(|_, _| 2);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].times.first, found[0].times.last, found[0].times.count), (3, 9, 2));
        assert_eq!(contacts.at(found[0].place).unwrap().host_id, "h1");
        assert_eq!(contacts.values_of(0), ["x", "y"]);
    }
}
