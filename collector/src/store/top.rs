//! The first of many events, in the order that is wanted.

use std::collections::BTreeMap;

use buildtrail_proto::v1::AuditEvent;

use super::{Bounds, Order, Position};

/// Keeps the first events within bounds, whatever order they come in.
pub(super) struct Top {
    order: Order,
    bounds: Bounds,
    kept: BTreeMap<Position, (AuditEvent, usize)>,
    bytes: usize,
    /// The first position that was given up.
    cut: Option<Position>,
}

impl Top {
    pub(super) fn new(order: Order, bounds: Bounds) -> Self {
        Self { order, bounds, kept: BTreeMap::new(), bytes: 0, cut: None }
    }

    /// Whether an event at this position would not be kept.
    pub(super) fn is_beyond(&self, position: Position) -> bool {
        self.cut.is_some_and(|cut| self.order.key(position) >= self.order.key(cut))
    }

    /// Whether something was given up.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn add(&mut self, position: Position, event: AuditEvent, size: usize) {
        if self.is_beyond(position) {
            return;
        }
        self.bytes += size;
        self.kept.insert(self.order.key(position), (event, size));
        while self.kept.len() > self.bounds.events || (self.bytes > self.bounds.bytes && self.kept.len() > 1)
        {
            let Some((key, (_, size))) = self.kept.pop_last() else { return };
            self.bytes -= size;
            self.cut = Some(self.order.key(key));
        }
    }

    /// The events in order, and the position of the last one.
    pub(super) fn finish(self) -> (Vec<AuditEvent>, Option<Position>) {
        let last = self.kept.last_key_value().map(|(key, _)| self.order.key(*key));
        (self.kept.into_values().map(|(event, _)| event).collect(), last)
    }
}

impl Order {
    /// Positions in this order are their keys in ascending order; the key of a key is the position.
    pub(super) fn key(self, position: Position) -> Position {
        match self {
            Self::NewestFirst => Position { time: !position.time, row: !position.row },
            Self::OldestFirst => position,
        }
    }
}
