//! The index: an `SQLite` database derived from the log.
//!
//! In: decoded log records, in the order of the log. Out: answers for [`crate::query`]. How far the log is indexed is
//! kept in the same transaction as what was indexed, so that after a crash it goes on exactly there; an index that is
//! damaged, older or of another log is made anew.
//! Must never be trusted over the log, or hold something that the log does not.

mod aggregate;
mod apply;
mod cells;
mod dictionary;
mod growth;
mod hosts;
mod hunt;
mod identity;
mod indexer;
mod jobs;
mod places;
mod reader;
mod replay;
mod schema;
mod search;
mod thin;
mod top;
mod wire;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_evidence::{
    batch::ChainHead,
    chain::Chain,
    digest::Digest,
    id::HostId,
    key::HostPublicKey,
    records::{RecordIndex, RecordsError},
};
use buildtrail_proto::v1::{CollectorEntry, collector_entry::Act};
use prost::Message as _;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

pub(crate) use aggregate::{By, Counted, Group, Tally};
pub(crate) use hunt::UsedSecret;
pub(crate) use indexer::{LiveEvents, run as run_indexer};
pub(crate) use jobs::{JobKey, JobOrder, JobRow, Resolved};
pub(crate) use places::{ActSelection, JobRecords};
pub(crate) use reader::{Asked, Reader};
pub(crate) use search::{Bounds, Order, Page, Position};

use dictionary::Known;

use crate::{
    dark,
    ledger::{Forks, Item, ItemEntry, KnownHost, KnownHosts},
};

/// How long a statement waits for the other connection's lock.
const BUSY: Duration = Duration::from_secs(10);

/// The index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `SQLite` refused.
    #[error(
        "the index failed: {0}; it is derived from the log: stop the collector, delete index.sqlite*, start it again"
    )]
    Sqlite(#[from] rusqlite::Error),
    /// A damaged index could not be removed.
    #[error("cannot remove the old index {}: {source}; remove it by hand", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] RecordsError),
    /// What the index holds is not what it can hold.
    #[error("the index is damaged ({0}); stop the collector, delete index.sqlite*, start it again")]
    Damaged(&'static str),
    /// The question took longer than `limits.query_seconds`.
    #[error("the question took too long; narrow it by time, host or job, or raise limits.query_seconds")]
    TimedOut,
}

impl StoreError {
    fn is_full_disk(&self) -> bool {
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

/// The index, open for writing. One per process.
pub(crate) struct Store {
    path: PathBuf,
    connection: Connection,
    known: Known,
}

impl Store {
    /// Opens the index, making it (anew) if it is missing, damaged or of another version.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        match connect(path) {
            Ok(Some(connection)) => return Ok(Self::new(path, connection)),
            Ok(None) => tracing::warn!("the index is of another version: it is made anew from the log"),
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, "the index is damaged: it is made anew from the log");
            }
            Err(error) => return Err(error.into()),
        }
        remove(path)?;
        match connect(path)? {
            Some(connection) => Ok(Self::new(path, connection)),
            None => Err(StoreError::Damaged("a new one is of another version")),
        }
    }

    fn new(path: &Path, connection: Connection) -> Self {
        Self { path: path.to_owned(), connection, known: Known::default() }
    }

    /// Throws everything away.
    pub(crate) fn reset(&mut self) -> Result<(), StoreError> {
        let path = self.path.clone();
        self.connection = Connection::open_in_memory()?;
        remove(&path)?;
        *self = Self::open(&path)?;
        Ok(())
    }

    /// Throws everything away to be indexed anew, unless that was begun before and broke off: then it goes on there.
    pub(crate) fn begin_rebuilding(&mut self) -> Result<(), StoreError> {
        let begun = self.connection.query_row("SELECT rebuilding FROM state", [], |row| row.get(0))?;
        if begun {
            tracing::info!(from = self.next_record()?.0, "going on where making the index anew broke off");
            return Ok(());
        }
        self.reset()?;
        self.connection.execute("UPDATE state SET rebuilding = 1", [])?;
        Ok(())
    }

    /// Notes that everything is indexed.
    pub(crate) fn end_rebuilding(&mut self) -> Result<(), StoreError> {
        self.connection.execute("UPDATE state SET rebuilding = 0", [])?;
        Ok(())
    }

    /// A reader of the same index.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.path.clone())
    }

    /// The next log record to index.
    fn next_record(&self) -> Result<RecordIndex, StoreError> {
        let next: i64 = self.connection.query_row("SELECT next_record FROM state", [], |row| row.get(0))?;
        Ok(RecordIndex(next.cast_unsigned()))
    }

    /// Digest of the log's first record, once it is indexed.
    fn origin(&self) -> Result<Option<Digest>, StoreError> {
        let origin: Option<Vec<u8>> =
            self.connection.query_row("SELECT origin FROM state", [], |row| row.get(0))?;
        origin
            .map(|bytes| Digest::try_from(&bytes[..]).map_err(|_| StoreError::Damaged("origin")))
            .transpose()
    }

    /// Indexes records, all or nothing.
    pub(crate) fn apply(&mut self, items: &[Item]) -> Result<(), StoreError> {
        let applied = self.try_apply(items);
        if applied.is_err() {
            // What was remembered may have been undone.
            self.known.forget();
        }
        applied
    }

    fn try_apply(&mut self, items: &[Item]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for item in items {
            match &item.entry {
                ItemEntry::Host(host) => apply::host(&transaction, item.record, host)?,
                ItemEntry::Thinned { first, end } => {
                    thin::thinned(&transaction, &mut self.known, *first, *end)?;
                }
                ItemEntry::Collector(entry) => apply::act(&transaction, item.record, entry)?,
                ItemEntry::Batch(batch) => {
                    apply::batch(&transaction, item.record, batch, &mut self.known)?;
                }
            }
            let next = item.record.next().0.cast_signed();
            transaction.execute("UPDATE state SET next_record = ?1", [next])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Notes that records up to `next` were lost: hosts may go on with a gap.
    fn mark_damaged(&mut self, next: RecordIndex) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("UPDATE hosts SET damaged = 1", [])?;
        let next = next.0.cast_signed();
        transaction.execute("UPDATE state SET damaged = 1, next_record = max(next_record, ?1)", [next])?;
        transaction.commit()?;
        Ok(())
    }

    /// Every host in the log and where its chain ends.
    pub(crate) fn known_hosts(&self) -> Result<KnownHosts, StoreError> {
        let damaged = self.connection.query_row("SELECT damaged FROM state", [], |row| row.get(0))?;
        let mut known = KnownHosts { damaged, forks: self.known_forks()?, ..KnownHosts::default() };
        let mut statement = self.connection.prepare(
            "SELECT host_id, public_key, number, digest, boot_id, last_sequence, damaged FROM hosts",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let host_id: String = row.get(0)?;
            let key: Vec<u8> = row.get(1)?;
            let digest: Vec<u8> = row.get(3)?;
            let head = ChainHead {
                number: row.get::<_, i64>(2)?.cast_unsigned(),
                digest: Digest::try_from(&digest[..]).map_err(|_| StoreError::Damaged("a digest"))?,
                boot_id: row.get(4)?,
                last_sequence: row.get::<_, i64>(5)?.cast_unsigned(),
            };
            let mut chain = Chain::resume(head);
            if row.get(6)? {
                chain.mark_damaged();
            }
            let host_id = HostId::parse(&host_id).map_err(|_| StoreError::Damaged("a host id"))?;
            let key = HostPublicKey::try_from(&key[..]).map_err(|_| StoreError::Damaged("a host key"))?;
            known.hosts.insert(host_id, KnownHost { key, chain });
        }
        Ok(known)
    }

    /// Every host, for [`crate::dark`].
    pub(crate) fn watched_hosts(&self) -> Result<Vec<dark::Known>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT host_id, name, coalesce((
                 SELECT kind FROM acts WHERE acts.host_id = hosts.host_id AND kind IN ('host.dark', 'host.back')
                 ORDER BY record DESC LIMIT 1
             ), '') = 'host.dark' FROM hosts",
        )?;
        let mut rows = statement.query([])?;
        let mut hosts = Vec::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let id = HostId::parse(&id).map_err(|_| StoreError::Damaged("a host id"))?;
            hosts.push(dark::Known { id, name: row.get(1)?, dark: row.get(2)? });
        }
        Ok(hosts)
    }

    fn known_forks(&self) -> Result<Forks, StoreError> {
        let mut forks = Forks::default();
        let mut statement = self.connection.prepare("SELECT entry FROM acts WHERE kind = 'chain.fork'")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let entry: Vec<u8> = row.get(0)?;
            let entry = CollectorEntry::decode(&entry[..]).map_err(|_| StoreError::Damaged("an act"))?;
            if let Some(Act::ChainFork(fork)) = &entry.act {
                forks.known(fork);
            }
        }
        Ok(forks)
    }

    fn host_key(&self, host_id: &str) -> Result<Option<HostPublicKey>, StoreError> {
        let key: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT public_key FROM hosts WHERE host_id = ?1", params![host_id], |row| row.get(0))
            .optional()?;
        key.map(|key| HostPublicKey::try_from(&key[..]).map_err(|_| StoreError::Damaged("a host key")))
            .transpose()
    }
}

/// Opens a connection for writing; `None`: the file is of another version.
fn connect(path: &Path) -> rusqlite::Result<Option<Connection>> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // NORMAL: a power cut may undo the last transactions, never break the file; the log then fills them in again.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF;",
    )?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if version == 0 && tables == 0 {
        connection.execute_batch(&schema::create())?;
    } else if version != schema::VERSION {
        return Ok(None);
    }
    Ok(Some(connection))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Remove { path: name.into(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model_tests;
