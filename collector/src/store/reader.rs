//! Reading the index: connections of their own, so that questions and ingest do not wait for each other.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use buildtrail_evidence::{digest::Digest, id::HostId};
use rusqlite::{Connection, InterruptHandle, OpenFlags, OptionalExtension as _, params};
use tokio::sync::Semaphore;

use super::{BUSY, StoreError, identity::Identities};

/// Most questions that are answered at a time.
const CONNECTIONS: usize = 4;

/// Opens read-only connections as needed and keeps them.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
    identities: Arc<Identities>,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared {
                path,
                idle: Mutex::default(),
                places: Semaphore::new(CONNECTIONS),
                identities: Arc::default(),
            }),
        }
    }

    /// Answers a question on a thread of its own, within `limit`.
    ///
    /// # Errors
    /// What the question returns; or `SQLite` refuses, or time is up.
    pub(crate) async fn ask<T, E>(
        &self,
        limit: Duration,
        question: impl FnOnce(&Asked) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = async {
            let _place = self.shared.places.acquire().await.map_err(|_| StoreError::TimedOut)?;
            let identities = self.shared.identities.clone();
            let asked = Asked { connection: self.take()?, identities };
            let mut interrupt = InterruptOnDrop(Some(asked.connection.get_interrupt_handle()));
            let work = tokio::task::spawn_blocking(move || {
                let answer = question(&asked);
                (asked, answer)
            });
            let (asked, answer) = work.await.map_err(|_| StoreError::Damaged("a question failed"))?;
            interrupt.0 = None;
            self.give_back(asked.connection);
            answer
        };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(StoreError::TimedOut.into()))
    }

    /// The digest of a host's batch, if it is indexed. Blocks.
    pub(crate) fn batch_digest(&self, host: &HostId, number: u64) -> Result<Option<Digest>, StoreError> {
        let connection = self.take()?;
        let found: Option<Vec<u8>> = connection
            .prepare_cached(
                "SELECT batches.digest FROM batches JOIN hosts ON hosts.id = batches.host
                 WHERE hosts.host_id = ?1 AND batches.number = ?2",
            )?
            .query_row(params![host.as_str(), number.cast_signed()], |row| row.get(0))
            .optional()?;
        self.give_back(connection);
        found
            .map(|bytes| Digest::try_from(&bytes[..]).map_err(|_| StoreError::Damaged("a digest")))
            .transpose()
    }

    fn give_back(&self, connection: Connection) {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn take(&self) -> Result<Connection, StoreError> {
        if let Some(connection) = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.shared.path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    }
}

/// Stops a question whose asker is gone or out of time. Its connection is not used again.
struct InterruptOnDrop(Option<InterruptHandle>);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.interrupt();
        }
    }
}

/// A connection on which one question is answered.
pub(crate) struct Asked {
    pub(super) connection: Connection,
    pub(super) identities: Arc<Identities>,
}

impl Asked {
    #[cfg(test)]
    pub(super) fn raw(&self) -> &Connection {
        &self.connection
    }
}
