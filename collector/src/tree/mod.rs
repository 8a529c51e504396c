//! The tree over the log: tiles on disk, and checkpoints that the collector signs.
//!
//! In: leaves, in the order of the log, once their records are on disk. Out: files below `tlog/` (`docs/formats/tree.md`)
//! and the newest signed checkpoint for whoever asks. A thread of its own does the hashing, so that batches do not wait
//! for it. Must never sign a tree that is smaller than one it signed before, or that does not begin with it.

pub(crate) mod files;
mod keeper;
mod key;
mod start;

use std::{io, path::PathBuf, sync::Arc};

use buildtrail_evidence::{
    records::{RecordIndex, RecordsError},
    tlog::{
        note::{CheckpointError, NoteKey, NoteKeyError, SignatureLine, SignedCheckpoint},
        policy::PolicyError,
        tiles::TreeError as TilesError,
    },
};
use tokio::sync::watch;

pub(crate) use keeper::Keeper;
pub(crate) use key::load_or_make as load_or_make_key;

/// The tree cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the disk, its free space and the permissions", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The log is shorter than what was signed.
    #[error(
        "the log holds {log} records, but the collector has signed a tree of {signed}: records at its end were cut off or \
         an older copy was put back. Put the whole log back. If the records are lost for good, start once with \
         --accept-loss: their leaves stay in the tree and the loss is noted in the log"
    )]
    RolledBack {
        /// Records there.
        log: RecordIndex,
        /// Leaves signed.
        signed: RecordIndex,
    },
    /// The log's records are not the leaves that were signed.
    #[error(
        "record {0} of the log is not the one that stands in the signed tree: the log was replaced or altered; \
         `buildtrail verify` names what is wrong. Put the right log back, or begin a new one in another data directory"
    )]
    Replaced(RecordIndex),
    /// The checkpoint is not ours.
    #[error(
        "the signed checkpoint {} cannot be taken up: {source}; put back the key, the setting tree.origin or the \
         checkpoint that belong together", path.display()
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: CheckpointError,
    },
    /// The key or the name of the log.
    #[error("cannot use the log's key {}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The setting `tree.origin`.
    #[error("tree.origin in the settings: {0}")]
    Origin(#[from] NoteKeyError),
    /// The policy.
    #[error("{}: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyError,
    },
    /// A witness's URL.
    #[error("{}: the URL of witness {name:?} is none of the form http://HOST:PORT/PATH or https://…", path.display())]
    WitnessUrl {
        /// The policy.
        path: PathBuf,
        /// The witness.
        name: String,
    },
    /// The tree's files.
    #[error(transparent)]
    Tiles(#[from] TilesError),
    /// The log.
    #[error(transparent)]
    Log(#[from] RecordsError),
}

impl TreeError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// What the tree's thread waits for.
#[derive(Debug)]
pub(crate) enum Message {
    /// Leaves whose records are on disk.
    Leaves(Vec<Vec<u8>>),
    /// A witness's signature over a checkpoint's text.
    Cosigned(Box<(NoteKey, SignatureLine)>),
    /// No more leaves will come.
    Last,
}

/// The newest checkpoints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heads {
    pub(crate) latest: SignedCheckpoint,
    /// The newest one with a quorum; only where there is a policy.
    pub(crate) witnessed: Option<SignedCheckpoint>,
}

/// The newest checkpoints, as they change; the first is there before the collector serves.
pub(crate) type Published = watch::Receiver<Arc<Heads>>;
