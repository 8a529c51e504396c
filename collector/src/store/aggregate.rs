//! Numbers of events by the values of fields and by time.
//!
//! Where every event of a cell counts for the same group, the roll-ups are summed ([`Rollup`]); otherwise, and at the edges
//! of the search's time, the events of the cells that can match are counted one by one.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::{Compiled, Field, Scope, bytes};

use super::{
    Asked, Order, StoreError,
    cells::{Cell, Plan},
    dictionary,
    growth::{HOUR, hour},
};

/// Most groups that are told apart; then the counting ends.
const MAX_GROUPS: usize = 50_000;
/// Most groups that one event counts for.
const MAX_GROUPS_OF_EVENT: usize = 1000;
/// Most rows of roll-ups that are summed; then only the later half of the time is counted.
const MAX_ROWS: usize = 1_000_000;
/// More values than these are counted event by event.
const MAX_VALUES: usize = 200_000;

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct By {
    pub(crate) fields: Vec<Field>,
    /// Length of a bucket in nanoseconds; `None`: no time.
    pub(crate) bucket: Option<i64>,
}

/// One combination of values and time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) time: Option<i64>,
    pub(crate) values: Vec<String>,
}

/// What is known of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) events: u64,
    /// Rows of the jobs table.
    pub(crate) jobs: HashSet<i64>,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) groups: HashMap<Group, Tally>,
    /// Not everything was looked through: true only from this time on.
    pub(crate) only_since: Option<i64>,
}

impl Asked {
    /// Counts what matches and may be seen; looks at about `looked_at` events where roll-ups do not do.
    pub(crate) fn aggregate(
        &self,
        scope: &Scope,
        search: &Compiled,
        by: &By,
        looked_at: usize,
    ) -> Result<Counted, StoreError> {
        let Some((oldest, newest)) = self.times()? else { return Ok(Counted::default()) };
        let times = (search.since().max(oldest), search.until().min(newest.saturating_add(1)));
        if times.0 >= times.1 {
            return Ok(Counted::default());
        }
        let plan = self.plan(scope, search)?;
        let mut counting =
            Counting { asked: self, plan: &plan, search, by, budget: looked_at, counted: Counted::default() };
        match self.rollup(search, by)? {
            Some(rollup) => counting.sum(&rollup, times)?,
            None => counting.count(times)?,
        }
        Ok(counting.counted)
    }

    /// How roll-ups answer; `None`: they do not.
    fn rollup(&self, search: &Compiled, by: &By) -> Result<Option<Rollup>, StoreError> {
        if by.bucket.is_some_and(|length| length % HOUR != 0) {
            return Ok(None);
        }
        let conditions: Vec<_> = search
            .conditions()
            .iter()
            .filter(|it| !it.field().is_of_identity() && it.field() != Field::Kind)
            .collect();
        let mut of_events = by.fields.iter().filter(|it| !it.is_of_identity() && **it != Field::Kind);
        let (first, second) = (of_events.next(), of_events.next());
        let field = match (first, conditions.first()) {
            (None, None) => return Ok(Some(Rollup::Kinds)),
            (Some(field), None) => *field,
            (_, Some(condition)) => condition.field(),
        };
        let fits = second.is_none()
            && first.is_none_or(|first| *first == field)
            && field.is_indexed()
            && conditions.iter().all(|it| it.field() == field && !it.accepts_absence());
        if !fits {
            return Ok(None);
        }
        let accept = |text: &str| conditions.iter().all(|it| it.accepts(text) != it.is_negated());
        let Some(values) = dictionary::accepted(&self.connection, field, MAX_VALUES, accept)? else {
            return Ok(None);
        };
        // Where an event may have several values, one condition may accept one of them and another refuse the next.
        let asked_once = conditions.len() <= 1 && conditions.iter().all(|it| !it.is_negated());
        let each_counts_once = field.is_single() || (asked_once && (first.is_some() || values.len() == 1));
        let by_address = field == Field::Dest
            && match conditions.first() {
                Some(condition) => {
                    dictionary::accepted(&self.connection, Field::Address, 0, |it| condition.accepts(it))?
                        .is_none()
                }
                None => false,
            };
        let has_value = first.is_some() || conditions.iter().any(|it| !it.is_negated());
        let exact = each_counts_once && has_value && !by_address;
        Ok(exact.then_some(Rollup::Values { values, heads: first.is_some() }))
    }
}

/// Which roll-ups are summed.
enum Rollup {
    /// Those of kinds: all events.
    Kinds,
    /// Those of these values of one field; they are part of the group if `heads`.
    Values { values: Vec<i64>, heads: bool },
}

/// A group by numbers: the bucket, and for each field an interned value.
type Key = (Option<i64>, Vec<u32>);

/// Cells at the edges of the time, by hour, identity and kind: `None` is wholly outside, the others partly.
type Edges = HashMap<(i64, i64, i64), Option<Cell>>;

struct Counting<'a> {
    asked: &'a Asked,
    plan: &'a Plan<'a>,
    search: &'a Compiled,
    by: &'a By,
    budget: usize,
    counted: Counted,
}

impl Counting<'_> {
    /// Sums roll-ups. Cells that are partly outside of the time are counted event by event.
    fn sum(&mut self, rollup: &Rollup, (since, until): (i64, i64)) -> Result<(), StoreError> {
        let (kinds, heads) = (self.plan.kinds(), matches!(rollup, Rollup::Values { heads: true, .. }));
        let values = match rollup {
            Rollup::Kinds => kinds,
            Rollup::Values { values, .. } => values,
        };
        let mut since = since;
        let mut sums = loop {
            let edges = self.edges((since, until))?;
            if let Some(sums) = self.sum_rows(values, heads, (since, until), &edges)? {
                for cell in edges.into_values().flatten() {
                    self.count_cell(&cell, (since, until))?;
                }
                break sums;
            }
            since = (since / 2 + until / 2).div_euclid(HOUR) * HOUR;
            self.counted.only_since = Some(since);
        };
        let groups = &mut self.counted.groups;
        for (key, tally) in sums.tallies.drain() {
            let values = key.1.iter().map(|id| sums.names.texts[*id as usize].clone()).collect();
            groups.entry(Group { time: key.0, values }).or_default().merge(&tally);
        }
        Ok(())
    }

    /// The cells of the first and the last hour that are wholly outside (`None`) or partly outside of the time.
    fn edges(&self, (since, until): (i64, i64)) -> Result<Edges, StoreError> {
        let mut edges = HashMap::new();
        let (first, last) = (hour(since), hour(until.saturating_sub(1)));
        for edge in if first == last { vec![first] } else { vec![first, last] } {
            if edge.saturating_mul(HOUR) >= since && edge.saturating_add(1).saturating_mul(HOUR) <= until {
                continue;
            }
            for cell in self.asked.all_cells(self.plan, edge)? {
                let key = (cell.hour, cell.identity, cell.kind);
                if cell.last < since || cell.first >= until {
                    edges.insert(key, None);
                } else if cell.first < since || cell.last >= until {
                    edges.insert(key, Some(cell));
                }
            }
        }
        Ok(edges)
    }

    /// `None`: there are too many rows.
    fn sum_rows(
        &self,
        values: &[i64],
        heads: bool,
        (since, until): (i64, i64),
        edges: &Edges,
    ) -> Result<Option<Sums>, StoreError> {
        let mut statement = self.asked.connection.prepare_cached(
            "SELECT hour, identity, kind, count, first, last, bytes_out, bytes_in FROM uses
             WHERE value = ?1 AND hour BETWEEN ?2 AND ?3",
        )?;
        let kinds: HashSet<i64> = self.plan.kinds().iter().copied().collect();
        let (mut sums, mut looked_at) = (Sums::default(), 0);
        for value in values {
            let head = if heads { Some(self.asked.kind(*value)?) } else { None };
            let mut rows = statement.query([*value, hour(since), hour(until.saturating_sub(1))])?;
            while let Some(row) = rows.next()? {
                looked_at += 1;
                if looked_at > MAX_ROWS {
                    return Ok(None);
                }
                let (at, identity, kind): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if !kinds.contains(&kind) || edges.contains_key(&(at, identity, kind)) {
                    continue;
                }
                let Some(job) = self.plan.visible.get(identity)?.map(|it| it.job) else { continue };
                let tally = Tally {
                    events: row.get::<_, i64>(3)?.cast_unsigned(),
                    jobs: job.into_iter().collect(),
                    first: row.get(4)?,
                    last: row.get(5)?,
                    bytes_out: row.get::<_, i64>(6)?.cast_unsigned(),
                    bytes_in: row.get::<_, i64>(7)?.cast_unsigned(),
                };
                for key in self.keys(&mut sums.names, at, identity, kind, head.as_deref())? {
                    sums.tallies.entry(key).or_default().merge(&tally);
                }
            }
        }
        Ok(Some(sums))
    }

    /// The groups of a row.
    fn keys(
        &self,
        names: &mut Names,
        at: i64,
        identity: i64,
        kind: i64,
        head: Option<&str>,
    ) -> Result<Vec<Key>, StoreError> {
        let time = self.by.bucket.map(|length| at.saturating_mul(HOUR).div_euclid(length) * length);
        let mut keys = vec![(time, Vec::with_capacity(self.by.fields.len()))];
        for field in &self.by.fields {
            let heads = if field.is_of_identity() {
                self.identity_heads(names, *field, identity)?
            } else if *field == Field::Kind {
                vec![names.intern(&self.asked.kind(kind)?)]
            } else {
                vec![names.intern(head.unwrap_or_default())]
            };
            keys = combine(keys, &heads);
        }
        Ok(keys)
    }

    fn identity_heads(&self, names: &mut Names, field: Field, identity: i64) -> Result<Vec<u32>, StoreError> {
        if let Some(known) = names.of_identities.get(&(identity, field)) {
            return Ok(known.clone());
        }
        let Some(found) = self.plan.visible.get(identity)? else { return Ok(Vec::new()) };
        let heads = self.search.heads(field, &found.event);
        let heads: Vec<u32> = heads.iter().map(|head| names.intern(head)).collect();
        names.of_identities.insert((identity, field), heads.clone());
        Ok(heads)
    }

    /// Counts events one by one, the newest hours first.
    fn count(&mut self, (since, until): (i64, i64)) -> Result<(), StoreError> {
        let (first, mut last) = (hour(since), hour(until.saturating_sub(1)));
        let mut width = 1_i64;
        while last >= first {
            let window = last.saturating_sub(width - 1).max(first);
            for cell in self.asked.cells(self.plan, window, last)? {
                self.count_cell(&cell, (since, until))?;
            }
            last = window - 1;
            if (self.budget == 0 || self.counted.groups.len() > MAX_GROUPS) && last >= first {
                self.counted.only_since = Some(window.saturating_mul(HOUR));
                return Ok(());
            }
            width = width.saturating_mul(2);
        }
        Ok(())
    }

    fn count_cell(&mut self, cell: &Cell, times: (i64, i64)) -> Result<(), StoreError> {
        let Some(job) = self.plan.visible.get(cell.identity)?.map(|it| it.job) else { return Ok(()) };
        let (by, search, groups, budget) = (self.by, self.search, &mut self.counted.groups, &mut self.budget);
        self.asked.events_of(self.plan, cell, times, Order::NewestFirst, &mut |position, event, _| {
            *budget = budget.saturating_sub(1);
            if search.matches(&event) {
                let tally = Tally::of(&event, position.time, job);
                for group in groups_of(&event, position.time, by, search) {
                    groups.entry(group).or_default().merge(&tally);
                }
            }
            ControlFlow::Continue(())
        })
    }
}

#[derive(Default)]
struct Sums {
    tallies: HashMap<Key, Tally>,
    names: Names,
}

/// Texts by number, so that groups are compared quickly.
#[derive(Default)]
struct Names {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
    of_identities: HashMap<(i64, Field), Vec<u32>>,
}

impl Names {
    fn intern(&mut self, text: &str) -> u32 {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// Each key with each head.
fn combine(keys: Vec<Key>, heads: &[u32]) -> Vec<Key> {
    if let ([head], [_]) = (heads, &keys[..]) {
        let mut keys = keys;
        keys[0].1.push(*head);
        return keys;
    }
    let with_each = keys.iter().flat_map(|key| {
        heads.iter().map(|head| {
            let mut key = key.clone();
            key.1.push(*head);
            key
        })
    });
    with_each.take(MAX_GROUPS_OF_EVENT).collect()
}

impl Tally {
    fn of(event: &AuditEvent, time: i64, job: Option<i64>) -> Self {
        let (bytes_out, bytes_in) = bytes(event);
        Self { events: 1, jobs: job.into_iter().collect(), first: time, last: time, bytes_out, bytes_in }
    }

    fn merge(&mut self, other: &Self) {
        let is_new = self.events == 0;
        self.first = if is_new { other.first } else { self.first.min(other.first) };
        self.last = if is_new { other.last } else { self.last.max(other.last) };
        self.events = self.events.saturating_add(other.events);
        self.jobs.extend(&other.jobs);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
    }
}

/// The groups that an event counts for: one for each combination of its values.
pub(super) fn groups_of(event: &AuditEvent, time: i64, by: &By, search: &Compiled) -> Vec<Group> {
    let time = by.bucket.map(|length| time.div_euclid(length) * length);
    let mut groups = vec![Group { time, values: Vec::new() }];
    for field in &by.fields {
        let heads = search.heads(*field, event);
        let with_each = groups.iter().flat_map(|group| {
            heads.iter().map(|value| {
                let mut group = group.clone();
                group.values.push(value.clone());
                group
            })
        });
        groups = with_each.take(MAX_GROUPS_OF_EVENT).collect();
    }
    groups
}
