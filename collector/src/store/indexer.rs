//! Indexes what the ledger stores, and tells those who watch live.

use std::sync::Arc;

use buildtrail_proto::v1::AuditEvent;
use tokio::sync::{broadcast, mpsc};

use super::{Store, StoreError};
use crate::ledger::{Item, ItemEntry};

/// Events as they are indexed. A receiver that falls behind by the channel's capacity loses its place.
pub(crate) type LiveEvents = broadcast::Sender<Arc<AuditEvent>>;

/// Runs until the ledger is gone and everything is indexed. Blocks.
///
/// # Errors
/// The index cannot be written. The log has everything; the next start goes on from there.
pub(crate) fn run(
    mut store: Store,
    mut stored: mpsc::Receiver<Vec<Item>>,
    live: &LiveEvents,
) -> Result<(), StoreError> {
    while let Some(items) = stored.blocking_recv() {
        store.apply(&items)?;
        if live.receiver_count() > 0 {
            publish(items, live);
        }
    }
    Ok(())
}

fn publish(items: Vec<Item>, live: &LiveEvents) {
    for item in items {
        let ItemEntry::Batch(batch) = item.entry else { continue };
        for event in batch.events {
            // An error means that the last watcher just left.
            let _ = live.send(Arc::new(event));
        }
    }
}
