//! From contacts to an answer: who is affected, and what to rotate first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use buildtrail_proto::{
    Timestamp, timestamp_from_unix_nanos,
    v1::{HuntResult, HuntedIndicator, HuntedJob, HuntedPlace, SecretToRotate},
};
use buildtrail_query::Field;

use super::{
    Indicators,
    contacts::{Contact, Contacts, Times, Where},
};
use crate::store::UsedSecret;

/// Most jobs that are listed.
const MAX_JOBS: usize = 10_000;
/// Most repositories that are named of a secret.
const MAX_REPOSITORIES: usize = 100;

/// The rule of the order, as the answer states it.
pub(super) const ORDER: &str = "First those that some affected job had no later than its last contact with an indicator \
(it may have gone there), by the number of such jobs; then those used only after it, by the number of jobs. Of equals the \
one that was used last comes first.";

/// A job, or a host outside of jobs, with all its contacts.
pub(super) struct Affected<'a> {
    pub(super) of: &'a Where,
    times: Times,
    indicators: BTreeSet<usize>,
}

/// All places with contacts, latest contact first.
pub(super) fn affected<'a>(contacts: &'a Contacts, found: &[Contact]) -> Vec<Affected<'a>> {
    let mut places: HashMap<usize, Affected<'a>> = HashMap::new();
    for contact in found {
        let Some(of) = contacts.at(contact.place) else { continue };
        let place = places.entry(contact.place).or_insert_with(|| Affected {
            of,
            times: contact.times,
            indicators: BTreeSet::new(),
        });
        place.times.add(Times { count: 0, ..contact.times });
        place.indicators.insert(contact.indicator);
    }
    let mut places: Vec<_> = places.into_values().collect();
    places.sort_by(|one, other| {
        let id =
            |it: &Affected<'_>| (it.of.host_id.clone(), it.of.job.as_ref().map(|job| job.job_id.clone()));
        other.times.last.cmp(&one.times.last).then_with(|| id(one).cmp(&id(other)))
    });
    places
}

/// The answer without secrets.
pub(super) fn summary(
    indicators: &Indicators,
    contacts: &Contacts,
    found: &[Contact],
    affected: &[Affected<'_>],
) -> HuntResult {
    let (hunted, order) = of_indicators(indicators, contacts, found);
    let jobs: Vec<&Affected<'_>> = affected.iter().filter(|place| place.of.job.is_some()).collect();
    let listed = jobs.iter().take(MAX_JOBS);
    HuntResult {
        indicators: hunted,
        remarks: indicators.remarks.clone(),
        jobs: listed.map(|place| hunted_job(place, &order)).collect(),
        jobs_not_listed: jobs.len().saturating_sub(MAX_JOBS) as u64,
        repositories: places(jobs.iter().map(|place| {
            (place.of.job.as_ref().map(|job| job.repository.as_str()).unwrap_or_default(), *place)
        })),
        hosts: places(affected.iter().map(|place| (place.of.host_id.as_str(), place))),
        order: ORDER.into(),
        ..HuntResult::default()
    }
}

/// Those that were found first; and where each indicator of the file stands among them.
fn of_indicators(
    indicators: &Indicators,
    contacts: &Contacts,
    found: &[Contact],
) -> (Vec<HuntedIndicator>, Vec<u32>) {
    let mut times: HashMap<usize, (Times, u64)> = HashMap::new();
    for contact in found {
        let is_job = contacts.at(contact.place).is_some_and(|of| of.job.is_some());
        let (sum, jobs) = times.entry(contact.indicator).or_insert((Times { count: 0, ..contact.times }, 0));
        sum.add(contact.times);
        *jobs += u64::from(is_job);
    }
    let (seen, unseen): (Vec<usize>, Vec<usize>) =
        (0..indicators.all.len()).partition(|indicator| times.contains_key(indicator));
    let mut order = vec![0; indicators.all.len()];
    let mut hunted = Vec::with_capacity(order.len());
    for index in seen.into_iter().chain(unseen) {
        let indicator = &indicators.all[index];
        order[index] = u32::try_from(hunted.len()).unwrap_or(u32::MAX);
        let found = times.get(&index);
        hunted.push(HuntedIndicator {
            indicator: indicator.shown.clone(),
            kind: indicator.kind.into(),
            line: indicator.line,
            events: found.map_or(0, |(times, _)| times.count),
            jobs: found.map_or(0, |(_, jobs)| *jobs),
            first_seen: found.and_then(|(times, _)| time(times.first)),
            last_seen: found.and_then(|(times, _)| time(times.last)),
            matched: if found.is_some() { contacts.values_of(index) } else { Vec::new() },
            not_recorded: indicator.is_not_recorded(),
        });
    }
    (hunted, order)
}

fn hunted_job(place: &Affected<'_>, order: &[u32]) -> HuntedJob {
    let mut indicators: Vec<u32> =
        place.indicators.iter().filter_map(|indicator| order.get(*indicator).copied()).collect();
    indicators.sort_unstable();
    HuntedJob {
        job: place.of.job.clone(),
        host_id: place.of.host_id.clone(),
        first_seen: time(place.times.first),
        last_seen: time(place.times.last),
        indicators,
    }
}

fn places<'a, 'b: 'a>(of: impl Iterator<Item = (&'a str, &'a Affected<'b>)>) -> Vec<HuntedPlace> {
    let mut known: BTreeMap<&str, (u64, Times)> = BTreeMap::new();
    for (name, place) in of {
        let (jobs, times) = known.entry(name).or_insert((0, place.times));
        *jobs += u64::from(place.of.job.is_some());
        times.add(place.times);
    }
    let mut places: Vec<_> = known.into_iter().collect();
    places.sort_by_key(|(_, (jobs, _))| std::cmp::Reverse(*jobs));
    let places = places.into_iter().map(|(name, (jobs, times))| HuntedPlace {
        name: name.into(),
        jobs,
        first_seen: time(times.first),
        last_seen: time(times.last),
    });
    places.collect()
}

/// Secrets of affected jobs, being counted.
#[derive(Debug, Default)]
pub(super) struct Rotation(BTreeMap<(bool, String), Rotating>);

#[derive(Debug)]
struct Rotating {
    jobs: u64,
    exposed: u64,
    times: Times,
    repositories: BTreeSet<String>,
}

impl Rotation {
    /// Adds what one affected job used.
    pub(super) fn add(&mut self, place: &Affected<'_>, secrets: Vec<UsedSecret>) {
        let mut of_job: BTreeMap<(bool, String), Times> = BTreeMap::new();
        for UsedSecret { field, name, first, last } in secrets {
            let times = Times { count: 1, first, last };
            let key = (field == Field::Secret, name);
            of_job.entry(key).and_modify(|known| known.add(times)).or_insert(times);
        }
        let repository = place.of.job.as_ref().map(|job| job.repository.clone()).unwrap_or_default();
        for (key, times) in of_job {
            let known = self.0.entry(key).or_insert(Rotating {
                jobs: 0,
                exposed: 0,
                times,
                repositories: BTreeSet::new(),
            });
            known.jobs += 1;
            known.exposed += u64::from(times.first <= place.times.last);
            known.times.add(times);
            if known.repositories.len() < MAX_REPOSITORIES {
                known.repositories.insert(repository.clone());
            }
        }
    }

    /// In the order of [`ORDER`].
    pub(super) fn finish(self) -> Vec<SecretToRotate> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(name, one), (other_name, other)| {
            let rank = |it: &Rotating| (it.exposed, it.jobs, it.times.last);
            rank(other).cmp(&rank(one)).then_with(|| name.cmp(other_name))
        });
        let all = all.into_iter().map(|((is_secret, name), it)| SecretToRotate {
            name,
            what: if is_secret { "secret" } else { "credential" }.into(),
            jobs: it.jobs,
            jobs_exposed: it.exposed,
            first_used: time(it.times.first),
            last_used: time(it.times.last),
            repositories: it.repositories.into_iter().collect(),
        });
        all.collect()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what messages hold is optional")]
fn time(nanos: i64) -> Option<Timestamp> {
    Some(timestamp_from_unix_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::Job;

    use super::*;

    #[test]
    fn what_was_had_before_the_last_contact_is_rotated_first() {
        let at = |job: &str| Where {
            host_id: "h".into(),
            job: Some(Job { job_id: job.into(), repository: format!("acme/{job}"), ..Job::default() }),
        };
        let (one, two) = (at("one"), at("two"));
        let affected = |of, last| Affected {
            of,
            times: Times { count: 1, first: 50, last },
            indicators: BTreeSet::from([0]),
        };
        let used = |field, name: &str, first, last| UsedSecret { field, name: name.into(), first, last };
        let mut rotation = Rotation::default();
        rotation.add(
            &affected(&one, 100),
            vec![
                used(Field::Secret, "before", 10, 20),
                used(Field::Secret, "after", 101, 200),
                used(Field::Credential, "both", 90, 95),
                // The same job, in another boot's identity.
                used(Field::Credential, "both", 99, 101),
            ],
        );
        rotation.add(
            &affected(&two, 60),
            vec![used(Field::Secret, "after", 70, 300), used(Field::Credential, "both", 60, 61)],
        );
        let order = rotation.finish();
        let told: Vec<_> =
            order.iter().map(|it| (it.name.as_str(), it.what.as_str(), it.jobs, it.jobs_exposed)).collect();
        let expected = [("both", "credential", 2, 2), ("before", "secret", 1, 1), ("after", "secret", 2, 0)];
        assert_eq!(told, expected);
        assert_eq!(order[0].repositories, ["acme/one", "acme/two"]);
    }
}
