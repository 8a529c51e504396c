//! One hunt: values first, which the index holds once each; then events, where rules and command lines need them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, Condition, HuntProgress, HuntResult, Operator, Search, audit_event::Body},
};
use buildtrail_query::{Compiled, Field, Scope};
use tokio::sync::mpsc;

use super::{
    Indicators, Wanted,
    atom::Atom,
    contacts::{Contacts, Times, TooMany},
    needles::{Haystack, Needles, Place},
    result::{self, Rotation},
    sigma,
};
use crate::store::{Bounds, Order, Page, Reader, StoreError};

/// Events that are looked through at a time.
const PAGE: Bounds = Bounds { events: 5_000, bytes: 32 << 20, looked_at: 50_000 };
/// Jobs whose secrets are asked for at a time.
const JOBS_AT_A_TIME: usize = 500;
/// Kinds of events that rules can be about: all that job's processes cause.
const FIELDS: [(Field, Haystack); 4] = [
    (Field::Name, Haystack::Name),
    (Field::Address, Haystack::Address),
    (Field::Path, Haystack::Path),
    (Field::Exe, Haystack::Path),
];

/// A hunt cannot be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HuntError {
    /// The file.
    #[error("{0}")]
    Indicators(String),
    /// The index.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too much was found.
    #[error(
        "these indicators are touched by more jobs than can be told; leave out those that everything touches, or narrow \
         the time"
    )]
    TooMany,
}

/// What is looked for, where, and by whom.
pub(crate) struct Hunt {
    pub(crate) indicators: Arc<Indicators>,
    pub(crate) scope: Scope,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl Hunt {
    /// Hunts. `limit` bounds each question to the index. Cancel safe: nothing is changed.
    pub(crate) async fn run(
        &self,
        reader: &Reader,
        limit: Duration,
        progress: &mpsc::Sender<HuntProgress>,
    ) -> Result<HuntResult, HuntError> {
        // Whoever does not read of progress hears of the result all the same.
        let tell = |stage: &str, done: usize, total: usize| {
            let (done, total) = (done as u64, total as u64);
            let _ = progress.try_send(HuntProgress { stage: stage.into(), done, total });
        };
        tell("values", 0, 0);
        let mut contacts = self.look_at_values(reader, limit).await?;
        if self.needs_events() {
            self.look_at_events(reader, limit, &mut contacts, &tell).await?;
        }
        let alternatives = |indicator: usize, alternative: usize| match self
            .indicators
            .all
            .get(indicator)
            .map(|it| &it.wanted)
        {
            Some(Wanted::Values(all)) => all.get(alternative).map_or(1, Vec::len),
            _ => 1,
        };
        let found = contacts.whole(alternatives);
        let affected = result::affected(&contacts, &found);
        let mut answer = result::summary(&self.indicators, &contacts, &found, &affected);
        let jobs: Vec<_> = affected.iter().filter(|place| place.of.job.is_some()).collect();
        let mut rotation = Rotation::default();
        for (number, some) in jobs.chunks(JOBS_AT_A_TIME).enumerate() {
            tell("secrets", number * JOBS_AT_A_TIME, jobs.len());
            let ids: Vec<_> = some
                .iter()
                .filter_map(|place| Some((place.of.host_id.clone(), place.of.job.as_ref()?.job_id.clone())))
                .collect();
            let scope = self.scope.clone();
            let secrets = reader
                .ask(limit, move |asked| {
                    let each = ids.iter().map(|(host, job)| asked.secrets_of(&scope, host, job));
                    each.collect::<Result<Vec<_>, StoreError>>()
                })
                .await?;
            for (place, secrets) in some.iter().zip(secrets) {
                rotation.add(place, secrets);
            }
        }
        answer.secrets = rotation.finish();
        answer.notes = self.notes(affected.len() > jobs.len());
        Ok(answer)
    }

    fn span(&self) -> (i64, i64) {
        let nanos = |time: &Timestamp| {
            let nanos = unix_nanos(time);
            i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
        };
        (self.since.as_ref().map_or(i64::MIN, nanos), self.until.as_ref().map_or(i64::MAX, nanos))
    }

    async fn look_at_values(&self, reader: &Reader, limit: Duration) -> Result<Contacts, HuntError> {
        let (indicators, scope, span) = (self.indicators.clone(), self.scope.clone(), self.span());
        reader
            .ask(limit, move |asked| {
                let needles = Needles::new(&indicators.all);
                let mut hits: HashMap<i64, (String, Vec<Place>)> = HashMap::new();
                for (field, haystack) in FIELDS {
                    asked.every_value(&scope, field, &mut |id, text| {
                        let found = needles.find(haystack, text);
                        if !found.is_empty() {
                            hits.insert(id, (text.to_owned(), found));
                        }
                    })?;
                }
                let mut contacts = Contacts::default();
                for (id, (text, places)) in hits {
                    for used in asked.uses_of(&scope, id, span)? {
                        let times = Times { count: used.count, first: used.first, last: used.last };
                        for place in &places {
                            contacts.add(*place, &used.of, &text, times)?;
                        }
                    }
                }
                Ok(contacts)
            })
            .await
    }

    fn rules(&self) -> impl Iterator<Item = (usize, &sigma::Rule)> {
        let all = self.indicators.all.iter().enumerate();
        all.filter_map(|(number, indicator)| Some((number, indicator.rule()?)))
    }

    fn has_command_lines(&self) -> bool {
        self.indicators.all.iter().any(|indicator| match &indicator.wanted {
            Wanted::Values(all) => all.iter().flatten().any(|atom| matches!(atom, Atom::CommandLine(_))),
            Wanted::Events(_) => false,
        })
    }

    fn needs_events(&self) -> bool {
        self.has_command_lines() || self.rules().next().is_some()
    }

    /// The kinds of events that must be looked at; none: all.
    fn kinds(&self) -> Vec<String> {
        let mut kinds: Vec<&str> = Vec::new();
        for (_, rule) in self.rules() {
            if rule.kinds().is_empty() {
                return Vec::new();
            }
            kinds.extend(rule.kinds());
        }
        if self.has_command_lines() {
            kinds.push("process.exec");
        }
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().map(str::to_owned).collect()
    }

    async fn look_at_events(
        &self,
        reader: &Reader,
        limit: Duration,
        contacts: &mut Contacts,
        tell: &impl Fn(&str, usize, usize),
    ) -> Result<(), HuntError> {
        let values = self.kinds();
        let kinds = Condition { field: "kind".into(), operator: Operator::Equals.into(), values };
        let search = Search {
            r#where: if kinds.values.is_empty() { Vec::new() } else { vec![kinds] },
            since: self.since,
            until: self.until,
            ..Search::default()
        };
        let search =
            Arc::new(Compiled::new(&search).map_err(|error| HuntError::Indicators(error.to_string()))?);
        let (mut after, mut seen) = (None, 0);
        loop {
            let (scope, search) = (self.scope.clone(), search.clone());
            let Page { events, next } = reader
                .ask(limit, move |asked| asked.search(&scope, &search, Order::OldestFirst, after, PAGE))
                .await?;
            seen += events.len();
            self.look_at(&events, contacts)?;
            tell("events", seen, 0);
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
            // Rules can be many and pages large: others want to be answered meanwhile.
            tokio::task::yield_now().await;
        }
    }

    fn look_at(&self, events: &[AuditEvent], contacts: &mut Contacts) -> Result<(), HuntError> {
        let needles = Needles::new(&self.indicators.all);
        for event in events {
            let at =
                event.time.as_ref().map_or(0, |time| i64::try_from(unix_nanos(time)).unwrap_or(i64::MAX));
            let times = Times { count: 1, first: at, last: at };
            for (indicator, rule) in self.rules() {
                if rule.matches(event) {
                    let place = Place { indicator, alternative: 0, condition: 0 };
                    contacts.add(place, event, event.kind(), times)?;
                }
            }
            if let Some(Body::ProcessExec(exec)) = &event.body {
                let line = sigma::command_line(exec);
                for place in needles.find(Haystack::CommandLine, &line) {
                    contacts.add(place, event, &line, times)?;
                }
            }
        }
        Ok(())
    }

    fn notes(&self, outside_jobs: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let has = |wanted: fn(&Atom) -> bool| {
            self.indicators.all.iter().any(|indicator| match &indicator.wanted {
                Wanted::Values(all) => all.iter().flatten().any(wanted),
                Wanted::Events(_) => false,
            })
        };
        if has(|atom| matches!(atom, Atom::Hash)) {
            notes.push("Agents record no digests of files: hashes were not searched for.");
        }
        if self.indicators.all.iter().any(|indicator| indicator.kind == "url") {
            notes.push("Of URLs only the host is recorded: others' use of the same host looks the same.");
        }
        if has(|atom| matches!(atom, Atom::Path(_) | Atom::FileName(_))) {
            notes.push(
                "Paths are recorded of executed programs, of secret files and of sockets; what else jobs read and wrote \
                 is not.",
            );
        }
        if has(|atom| matches!(atom, Atom::CommandLine(_))) {
            notes.push("Command lines are recorded with credentials replaced, and long ones cut.");
        }
        if self.since.is_some() || self.until.is_some() {
            notes.push("Times of values are known by the hour: contacts within the hours of --since and --until count.");
        }
        if outside_jobs {
            notes.push(
                "Some contacts were outside of any job; the secrets used on those hosts outside of jobs are not listed.",
            );
        }
        if !self.scope.is_everything() {
            notes.push("Only jobs that you may see were searched.");
        }
        notes.into_iter().map(str::to_owned).collect()
    }
}

impl From<TooMany> for HuntError {
    fn from(_: TooMany) -> Self {
        Self::TooMany
    }
}
