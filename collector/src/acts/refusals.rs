//! Who was refused and why, put together by reason.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use buildtrail_proto::{now, v1::PeersRefused};

/// Refusals since they were last taken: one entry per reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_reason: Mutex<HashMap<String, PeersRefused>>,
}

impl Refusals {
    /// Counts one; of the first of a reason it is kept who it was and what was wrong, both printable.
    pub(crate) fn add(&self, reason: &str, peer: impl FnOnce() -> String, detail: impl FnOnce() -> String) {
        let mut by_reason = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_reason.get_mut(reason) {
            known.count += 1;
            known.last = Some(now());
            return;
        }
        let refused = PeersRefused {
            reason: reason.to_owned(),
            count: 1,
            first: Some(now()),
            last: Some(now()),
            peer: peer(),
            detail: detail(),
        };
        by_reason.insert(reason.to_owned(), refused);
    }

    pub(crate) fn take(&self) -> Vec<PeersRefused> {
        let taken = std::mem::take(&mut *self.by_reason.lock().unwrap_or_else(PoisonError::into_inner));
        taken.into_values().collect()
    }
}
