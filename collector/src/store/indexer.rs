//! Indexes what the ledger stores, and tells those who watch live.

use std::{sync::Arc, time::Duration};

use buildtrail_proto::v1::AuditEvent;
use tokio::sync::{broadcast, mpsc, watch};

use super::{Store, StoreError};
use crate::ledger::{Item, ItemEntry};

/// Events as they are indexed. A receiver that falls behind by the channel's capacity loses its place.
pub(crate) type LiveEvents = broadcast::Sender<Arc<AuditEvent>>;

/// Between two attempts on a full disk. Meanwhile the ledger waits, and the hosts keep their batches.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Runs until the ledger is gone and everything is indexed. Blocks.
///
/// # Errors
/// The index cannot be written. The log has everything; the next start goes on from there.
pub(crate) fn run(
    mut store: Store,
    mut stored: mpsc::Receiver<Vec<Item>>,
    live: &LiveEvents,
    stopping: &watch::Receiver<bool>,
) -> Result<(), StoreError> {
    while let Some(items) = stored.blocking_recv() {
        while let Err(error) = store.apply(&items) {
            if !error.is_full_disk() || *stopping.borrow() {
                return Err(error);
            }
            tracing::error!(%error, "the disk is full; indexing goes on when there is room");
            std::thread::sleep(FULL_DISK_PAUSE);
        }
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
