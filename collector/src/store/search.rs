//! Events that a search asks for, a page at a time.
//!
//! Two ways lead to a page. Where "who used what" narrows the search down, its cells are looked at, hours of them at a
//! time, the wanted end of time first. Otherwise events are looked through in the order of time until the page is full or
//! enough was looked at; the next page goes on there. Either way every event is asked itself in the end.

use std::ops::ControlFlow;

use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::{Compiled, Scope, contains_ignoring_case};
use rusqlite::{OptionalExtension as _, params};

use super::{
    Asked, StoreError,
    cells::{Cell, Plan},
    growth::{HOUR, hour},
    top::Top,
};

/// Events of cells that are looked at together, at most, if they are of several hours.
const TOGETHER: u64 = 20_000;

/// In which order events are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

/// How much is returned at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    /// Of encoded events, together.
    pub(crate) bytes: usize,
    /// Events that are looked through, about.
    pub(crate) looked_at: usize,
}

/// Where an event stands in the order of time. Events that come later have other positions and move none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Nanoseconds since 1970.
    pub(crate) time: i64,
    pub(crate) row: i64,
}

/// A page of events.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) events: Vec<AuditEvent>,
    /// Where the next page begins: behind this position. `None`: this is the last page.
    pub(crate) next: Option<Position>,
}

/// Times from the first (inclusive) to the second (exclusive).
pub(super) type Times = (i64, i64);

impl Asked {
    /// The events behind `after` in the given order that match and may be seen.
    pub(crate) fn search(
        &self,
        scope: &Scope,
        search: &Compiled,
        order: Order,
        after: Option<Position>,
        bounds: Bounds,
    ) -> Result<Page, StoreError> {
        let Some((oldest, newest)) = self.times()? else { return Ok(Page::default()) };
        let times = (search.since().max(oldest), search.until().min(newest.saturating_add(1)));
        let plan = self.plan(scope, search)?;
        let looking = Looking { asked: self, plan: &plan, search, order, after, bounds, times };
        if plan.is_selective()
            && let Some(page) = looking.through_cells()?
        {
            return Ok(page);
        }
        looking.through_time()
    }

    /// Times of the first and the last event.
    pub(super) fn times(&self) -> Result<Option<Times>, StoreError> {
        let one = |sql: &str| self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional();
        let oldest = one("SELECT time FROM events ORDER BY time LIMIT 1")?;
        let newest = one("SELECT time FROM events ORDER BY time DESC LIMIT 1")?;
        Ok(oldest.zip(newest))
    }

    /// Hands the events of a cell to `visit`, in order, until it breaks off.
    pub(super) fn events_of(
        &self,
        plan: &Plan<'_>,
        cell: &Cell,
        (since, until): Times,
        order: Order,
        visit: &mut dyn FnMut(Position, AuditEvent, usize) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(identity) = plan.visible.get(cell.identity)? else { return Ok(()) };
        let direction = order.direction();
        let sql = format!(
            "SELECT time, id, body FROM events INDEXED BY events_by_identity
             WHERE identity = ?1 AND kind = ?2 AND time >= ?3 AND time < ?4
             ORDER BY time {direction}, id {direction}"
        );
        let (first, last) =
            (cell.hour.saturating_mul(HOUR), cell.hour.saturating_add(1).saturating_mul(HOUR));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows =
            statement.query(params![cell.identity, cell.kind, since.max(first), until.min(last)])?;
        while let Some(row) = rows.next()? {
            let position = Position { time: row.get(0)?, row: row.get(1)? };
            let body = row.get_ref(2)?.as_blob().map_err(|_| StoreError::Damaged("an event"))?;
            let event = identity.complete(body)?;
            if visit(position, event, body.len() + identity.size()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Order {
    fn direction(self) -> &'static str {
        match self {
            Self::NewestFirst => "DESC",
            Self::OldestFirst => "ASC",
        }
    }
}

/// One page being made.
struct Looking<'a> {
    asked: &'a Asked,
    plan: &'a Plan<'a>,
    search: &'a Compiled,
    order: Order,
    after: Option<Position>,
    bounds: Bounds,
    times: Times,
}

impl Looking<'_> {
    fn is_behind(&self, position: Position) -> bool {
        self.after.is_none_or(|after| self.order.key(position) > self.order.key(after))
    }

    /// Where the time that is still to be looked at begins and ends.
    fn times_left(&self) -> Times {
        let (since, until) = self.times;
        match (self.after, self.order) {
            (None, _) => self.times,
            (Some(after), Order::NewestFirst) => (since, until.min(after.time.saturating_add(1))),
            (Some(after), Order::OldestFirst) => (since.max(after.time), until),
        }
    }

    /// `None`: there is too much to look at in this way.
    fn through_cells(&self) -> Result<Option<Page>, StoreError> {
        let (since, until) = self.times_left();
        let (mut first, mut last) = (hour(since), hour(until.saturating_sub(1)));
        let (mut width, mut looked_at) = (1_i64, 0);
        let mut top = Top::new(self.order, self.bounds);
        while since < until && first <= last {
            let window = match self.order {
                Order::NewestFirst => (last.saturating_sub(width - 1).max(first), last),
                Order::OldestFirst => (first, first.saturating_add(width - 1).min(last)),
            };
            let cells = self.asked.cells(self.plan, window.0, window.1)?;
            let events = cells.iter().fold(0_u64, |sum, cell| sum.saturating_add(cell.count));
            if events > TOGETHER && window.0 < window.1 {
                width = ((window.1 - window.0) / 4).max(1);
                continue;
            }
            let too_many = usize::try_from(events).unwrap_or(usize::MAX) > self.bounds.looked_at;
            if too_many && self.plan.looks_at_events && looked_at == 0 {
                return Ok(None);
            }
            looked_at += self.look_at(cells, &mut top)?;
            if top.is_cut() {
                break;
            }
            // The edge of what was looked at: everything before it is done.
            let edge = match self.order {
                Order::NewestFirst => {
                    last = window.0 - 1;
                    Position { time: window.0.saturating_mul(HOUR), row: i64::MIN }
                }
                Order::OldestFirst => {
                    first = window.1 + 1;
                    Position { time: first.saturating_mul(HOUR) - 1, row: i64::MAX }
                }
            };
            if looked_at >= self.bounds.looked_at && first <= last {
                let (events, _) = top.finish();
                return Ok(Some(Page { events, next: Some(edge) }));
            }
            width = width.saturating_mul(2);
        }
        let is_cut = top.is_cut();
        let (events, last) = top.finish();
        Ok(Some(Page { events, next: last.filter(|_| is_cut) }))
    }

    /// Puts what matches in these cells into `top`; says how many events were looked at.
    fn look_at(&self, mut cells: Vec<Cell>, top: &mut Top) -> Result<usize, StoreError> {
        let edge = |cell: &Cell| match self.order {
            Order::NewestFirst => self.order.key(Position { time: cell.last, row: i64::MAX }),
            Order::OldestFirst => self.order.key(Position { time: cell.first, row: i64::MIN }),
        };
        cells.sort_unstable_by_key(edge);
        let (mut looked_at, times) = (0, self.times_left());
        for cell in cells {
            if top.is_beyond(self.order.key(edge(&cell))) {
                break;
            }
            self.asked.events_of(self.plan, &cell, times, self.order, &mut |position, event, size| {
                if top.is_beyond(position) {
                    return ControlFlow::Break(());
                }
                looked_at += 1;
                if self.is_behind(position) && self.search.matches(&event) {
                    top.add(position, event, size);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(looked_at)
    }

    fn through_time(&self) -> Result<Page, StoreError> {
        let direction = self.order.direction();
        let sql = format!(
            "SELECT time, id, identity, body FROM events INDEXED BY events_by_time
             WHERE time >= ?1 AND time < ?2 ORDER BY time {direction}, id {direction}"
        );
        let (since, until) = self.times_left();
        let mut statement = self.asked.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([since, until])?;
        let mut page = Page::default();
        let (mut looked_at, mut bytes, mut last) = (0, 0, None);
        while let Some(row) = rows.next()? {
            let position = Position { time: row.get(0)?, row: row.get(1)? };
            if !self.is_behind(position) {
                continue;
            }
            if looked_at == self.bounds.looked_at {
                page.next = last;
                break;
            }
            looked_at += 1;
            if let Some(identity) = self.plan.visible.get(row.get(2)?)? {
                let body = row.get_ref(3)?.as_blob().map_err(|_| StoreError::Damaged("an event"))?;
                if self.may_hold(identity.shared(), body) {
                    let event = identity.complete(body)?;
                    if self.search.matches(&event) {
                        let size = body.len() + identity.size();
                        if page.events.len() == self.bounds.events
                            || (bytes + size > self.bounds.bytes && bytes > 0)
                        {
                            page.next = last;
                            break;
                        }
                        bytes += size;
                        page.events.push(event);
                    }
                }
            }
            last = Some(position);
        }
        Ok(page)
    }

    /// Whether texts that must be contained can be in an event, without decoding it.
    fn may_hold(&self, shared: &[u8], body: &[u8]) -> bool {
        let mut wanted = self.search.conditions().iter().filter_map(|condition| condition.needles());
        wanted.all(|needles| {
            needles.iter().any(|needle| {
                contains_ignoring_case(body, needle.as_bytes())
                    || contains_ignoring_case(shared, needle.as_bytes())
            })
        })
    }
}
