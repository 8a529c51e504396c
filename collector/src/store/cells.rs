//! Which events can match, by "who used what": cells are the events of one identity, kind and hour.

use std::collections::{HashMap, HashSet};

use buildtrail_query::{Compiled, Condition, Field, Scope};
use rusqlite::{Row, params};

use super::{Asked, StoreError, dictionary, identity::Visible};

/// More values than these do not narrow a search down; events are then looked at instead.
const MAX_VALUES: usize = 2_000;
/// Identities that are looked at one by one rather than by the hour.
const FEW_IDENTITIES: usize = 200;

/// Events of one identity, kind and hour that can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) hour: i64,
    pub(super) identity: i64,
    pub(super) kind: i64,
    pub(super) count: u64,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// How a search is answered.
pub(super) struct Plan<'a> {
    pub(super) visible: Visible<'a>,
    /// Values of the kinds that can match.
    kinds: Vec<i64>,
    /// Accepted values, for each condition on an indexed field that must be met; the fewest first.
    filters: Vec<Vec<i64>>,
    /// The only identities that can match, where they are few.
    identities: Option<Vec<i64>>,
    /// Some condition can only be decided by looking at events.
    pub(super) looks_at_events: bool,
}

impl Plan<'_> {
    pub(super) fn kinds(&self) -> &[i64] {
        &self.kinds
    }

    /// Looking at cells is quicker than at all events in the order of time.
    pub(super) fn is_selective(&self) -> bool {
        !self.filters.is_empty() || self.identities.is_some()
    }
}

impl Asked {
    pub(super) fn plan<'a>(&'a self, scope: &'a Scope, search: &'a Compiled) -> Result<Plan<'a>, StoreError> {
        let mut filters = Vec::new();
        let mut looks_at_events = false;
        for condition in search.conditions().iter().filter(|it| dictionary::is_of_events(it.field())) {
            if condition.is_negated() || condition.accepts_absence() {
                continue;
            }
            filters.extend(dictionary::of_condition(&self.connection, condition, MAX_VALUES)?);
        }
        filters.sort_by_key(Vec::len);
        for condition in search.conditions() {
            looks_at_events |= !condition.field().is_indexed();
        }
        let is_kind = |kind: &str| {
            let mut of_kind = search.conditions().iter().filter(|it| it.field() == Field::Kind);
            of_kind.all(|condition| condition.accepts(kind) != condition.is_negated())
        };
        let kinds = dictionary::accepted(&self.connection, Field::Kind, MAX_VALUES, is_kind)?;
        Ok(Plan {
            visible: self.visible(scope, search),
            kinds: kinds.unwrap_or_default(),
            filters,
            identities: self.few_identities(search)?,
            looks_at_events,
        })
    }

    /// A plan without conditions.
    pub(super) fn plan_of_everything<'a>(&'a self, scope: &'a Scope) -> Result<Plan<'a>, StoreError> {
        let kinds = dictionary::accepted(&self.connection, Field::Kind, MAX_VALUES, |_| true)?;
        Ok(Plan {
            visible: self.in_scope(scope),
            kinds: kinds.unwrap_or_default(),
            filters: Vec::new(),
            identities: None,
            looks_at_events: false,
        })
    }

    /// The identities that conditions on identities leave, where they are few.
    fn few_identities(&self, search: &Compiled) -> Result<Option<Vec<i64>>, StoreError> {
        let narrows =
            |it: &&Condition| it.field().is_of_identity() && !it.is_negated() && !it.accepts_absence();
        let mut few: Option<Vec<i64>> = None;
        for condition in search.conditions().iter().filter(narrows) {
            let Some(values) = dictionary::of_condition(&self.connection, condition, FEW_IDENTITIES)? else {
                continue;
            };
            if let Some(found) = self.identities_with(&values)?
                && few.as_ref().is_none_or(|few| found.len() < few.len())
            {
                few = Some(found);
            }
        }
        Ok(few)
    }

    fn identities_with(&self, values: &[i64]) -> Result<Option<Vec<i64>>, StoreError> {
        let mut found = HashSet::new();
        let mut statement = self
            .connection
            .prepare_cached("SELECT identity FROM identity_facts WHERE value = ?1 LIMIT ?2")?;
        for value in values {
            let limit = i64::try_from(FEW_IDENTITIES + 1).unwrap_or(i64::MAX);
            for identity in statement.query_map(params![value, limit], |row| row.get(0))? {
                found.insert(identity?);
            }
            if found.len() > FEW_IDENTITIES {
                return Ok(None);
            }
        }
        let mut found: Vec<i64> = found.into_iter().collect();
        found.sort_unstable();
        Ok(Some(found))
    }

    /// The cells of these hours in which something may be seen and can match.
    pub(super) fn cells(&self, plan: &Plan<'_>, first: i64, last: i64) -> Result<Vec<Cell>, StoreError> {
        let mut cells = match (&plan.identities, plan.filters.split_first()) {
            (Some(identities), _) => self.cells_of(identities, &plan.kinds, first, last)?,
            (None, Some((rarest, _))) => self.cells_with(plan, rarest, first, last)?,
            (None, None) => self.cells_with(plan, &plan.kinds, first, last)?,
        };
        let narrowing = if plan.identities.is_some() {
            &plan.filters[..]
        } else {
            plan.filters.get(1..).unwrap_or_default()
        };
        for values in narrowing {
            if cells.is_empty() {
                break;
            }
            let others: HashSet<_> = self
                .cells_with(plan, values, first, last)?
                .iter()
                .map(|it| (it.hour, it.identity, it.kind))
                .collect();
            cells.retain(|cell| others.contains(&(cell.hour, cell.identity, cell.kind)));
        }
        let mut seen = Vec::with_capacity(cells.len());
        for cell in cells {
            if plan.visible.get(cell.identity)?.is_some() {
                seen.push(cell);
            }
        }
        Ok(seen)
    }

    /// All cells of an hour, of the kinds that can match.
    pub(super) fn all_cells(&self, plan: &Plan<'_>, hour: i64) -> Result<Vec<Cell>, StoreError> {
        self.cells_with(plan, &plan.kinds, hour, hour)
    }

    /// Cells with any of these values.
    fn cells_with(
        &self,
        plan: &Plan<'_>,
        values: &[i64],
        first: i64,
        last: i64,
    ) -> Result<Vec<Cell>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT hour, identity, kind, count, first, last FROM uses
             WHERE value = ?1 AND hour BETWEEN ?2 AND ?3",
        )?;
        let mut cells = Cells::default();
        for value in values {
            let mut rows = statement.query([*value, first, last])?;
            while let Some(row) = rows.next()? {
                let cell = cell(row)?;
                if plan.kinds.contains(&cell.kind) {
                    cells.add(cell);
                }
            }
        }
        Ok(cells.0.into_values().collect())
    }

    /// All cells of these kinds of a few identities.
    fn cells_of(
        &self,
        identities: &[i64],
        kinds: &[i64],
        first: i64,
        last: i64,
    ) -> Result<Vec<Cell>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT hour, identity, kind, count, first, last FROM uses INDEXED BY uses_by_identity
             WHERE identity = ?1 AND value = ?2 AND hour BETWEEN ?3 AND ?4",
        )?;
        let mut cells = Vec::new();
        for identity in identities {
            for kind in kinds {
                let mut rows = statement.query([*identity, *kind, first, last])?;
                while let Some(row) = rows.next()? {
                    cells.push(cell(row)?);
                }
            }
        }
        Ok(cells)
    }

    /// All cells of a job's identities that may be seen.
    pub(super) fn cells_of_job(&self, scope: &Scope, job: i64) -> Result<Vec<Cell>, StoreError> {
        let visible = self.in_scope(scope);
        let mut statement = self.connection.prepare_cached("SELECT id FROM identities WHERE job = ?1")?;
        let rows = statement.query_map([job], |row| row.get(0))?;
        let mut identities = Vec::new();
        for row in rows {
            let id = row?;
            if visible.get(id)?.is_some() {
                identities.push(id);
            }
        }
        let kinds = dictionary::accepted(&self.connection, Field::Kind, MAX_VALUES, |_| true)?;
        self.cells_of(&identities, &kinds.unwrap_or_default(), i64::MIN, i64::MAX)
    }
}

fn cell(row: &Row<'_>) -> rusqlite::Result<Cell> {
    Ok(Cell {
        hour: row.get(0)?,
        identity: row.get(1)?,
        kind: row.get(2)?,
        count: row.get::<_, i64>(3)?.cast_unsigned(),
        first: row.get(4)?,
        last: row.get(5)?,
    })
}

/// Cells of several values together.
#[derive(Default)]
struct Cells(HashMap<(i64, i64, i64), Cell>);

impl Cells {
    fn add(&mut self, cell: Cell) {
        let known = self.0.entry((cell.hour, cell.identity, cell.kind)).and_modify(|known| {
            known.count = known.count.saturating_add(cell.count);
            known.first = known.first.min(cell.first);
            known.last = known.last.max(cell.last);
        });
        known.or_insert(cell);
    }
}
