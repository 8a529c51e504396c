//! Room on the disk: batches are refused while only the reserve is left, so that entries about it, the index and the
//! tree still find room.

use std::path::PathBuf;

use buildtrail_proto::v1::{DiskBack, DiskFull, collector_entry::Act};
use nix::sys::statvfs::statvfs;

/// Watches the free space of the log's file system.
#[derive(Debug)]
pub(crate) struct Space {
    directory: PathBuf,
    reserve: u64,
    /// Batches that were refused since the reserve was reached; `None`: it is not.
    refused: Option<u64>,
}

impl Space {
    pub(crate) fn new(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve, refused: None }
    }

    /// Looks again. What has changed is to be noted in the log.
    pub(super) fn look(&mut self) -> Option<Act> {
        let free = match statvfs(&self.directory) {
            Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
            Err(error) => {
                tracing::warn!(%error, "the free space of the log's disk is not known");
                return None;
            }
        };
        match self.refused {
            None if free < self.reserve => {
                self.refused = Some(0);
                tracing::error!(free, "the disk is full: batches are refused until there is room");
                let reason = "only the reserve is left (log.reserve_bytes)".to_owned();
                Some(Act::DiskFull(DiskFull { free_bytes: free, reason }))
            }
            // A little more than the reserve, so that it does not go back and forth.
            Some(refused) if free >= self.reserve + self.reserve / 8 => {
                self.refused = None;
                tracing::warn!(free, refused, "there is room on the disk again");
                Some(Act::DiskBack(DiskBack { free_bytes: free, refused }))
            }
            _ => None,
        }
    }

    /// Whether a batch must be refused; counts it then.
    pub(super) fn refuses(&mut self) -> bool {
        self.refused = self.refused.map(|refused| refused + 1);
        self.refused.is_some()
    }
}
