//! The thread that keeps the tree.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use buildtrail_evidence::{
    records::{RecordIndex, RecordLog},
    tlog::{
        builder::{TreeBuilder, TreeFile},
        note::{Checkpoint, KeyKind, NoteKey, NoteSigner, SignatureLine, SignedCheckpoint},
        policy::Policy,
    },
};
use tokio::sync::watch;

use super::{Heads, Message, Published, TreeError, files, key, start};
use crate::config::Config;

/// How long the last checkpoint may wait for its witnesses at a stop.
const LAST_COSIGNATURES: Duration = Duration::from_secs(3);

/// The tree and its key; moves into its thread.
pub(crate) struct Keeper {
    directory: PathBuf,
    signer: Arc<NoteSigner>,
    policy: Option<Policy>,
    builder: TreeBuilder,
    /// Files that are full and not written yet.
    full: Vec<TreeFile>,
    /// What was signed last.
    signed: Option<SignedCheckpoint>,
    heads: Option<watch::Sender<Arc<Heads>>>,
}

impl Keeper {
    /// Takes up the tree as it was signed last. The log must hold at least as much.
    pub(crate) fn open(config: &Config, log: &RecordLog) -> Result<Self, TreeError> {
        let directory = config.tree_directory();
        files::make_directory(&directory)?;
        let key = key::load_or_make(&config.log_key_file(), KeyKind::Log, &config.tree.origin)?;
        files::replace(&directory.join("log.vkey"), format!("{}\n", key.public()).as_bytes())?;
        let signed = start::signed(&directory.join("checkpoint"), key.public())?;
        let mut builder = TreeBuilder::default();
        if let Some(signed) = &signed {
            let size = RecordIndex(signed.checkpoint().size);
            if log.end() < size {
                return Err(TreeError::RolledBack { log: log.end(), signed: size });
            }
            builder = start::take_up(&directory, log, signed.checkpoint())?;
        }
        let policy = config.policy()?;
        Ok(Self { directory, signer: Arc::new(key), policy, builder, full: Vec::new(), signed, heads: None })
    }

    /// Leaves that were signed before this start.
    pub(crate) fn signed_size(&self) -> u64 {
        self.signed.as_ref().map_or(0, |signed| signed.checkpoint().size)
    }

    /// The log's key: it also signs what is exported.
    pub(crate) fn signer(&self) -> Arc<NoteSigner> {
        Arc::clone(&self.signer)
    }

    pub(crate) fn public_key(&self) -> &NoteKey {
        self.signer.public()
    }

    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Brings the tree up to the end of the log and signs it.
    pub(crate) fn catch_up(&mut self, log: &RecordLog) -> Result<Published, TreeError> {
        start::extend(&mut self.builder, &mut self.full, &self.directory, log, log.durable_end())?;
        let latest = self.sign()?;
        let witnessed = match &self.policy {
            Some(_) => start::signed(&self.directory.join("witnessed"), self.signer.public())?,
            None => None,
        };
        let (heads, published) = watch::channel(Arc::new(Heads { latest, witnessed }));
        self.heads = Some(heads);
        Ok(published)
    }

    /// Adds what comes and signs it at most every `interval`, until [`Message::Last`]. What the disk refuses is tried
    /// again with the next checkpoint.
    pub(crate) fn run(mut self, messages: &Receiver<Message>, interval: Duration) {
        let mut due: Option<Instant> = None;
        loop {
            let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            match messages.recv_timeout(wait) {
                Ok(Message::Leaves(leaves)) => {
                    self.add(&leaves);
                    due.get_or_insert_with(|| Instant::now() + interval);
                }
                Ok(Message::Cosigned(cosigned)) => self.cosigned(&cosigned.0, &cosigned.1),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Last) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                due = if self.publish() { None } else { Some(Instant::now() + interval) };
            }
        }
        if self.publish() {
            self.wait_for_quorum(messages);
        }
    }

    fn add(&mut self, leaves: &[Vec<u8>]) {
        for leaf in leaves {
            start::push(&mut self.builder, leaf, &mut self.full);
        }
    }

    /// Signs what is new; says whether there is nothing left to sign.
    fn publish(&mut self) -> bool {
        if self.builder.size() == self.signed_size() {
            return true;
        }
        match self.sign() {
            Ok(latest) => {
                self.update_heads(|heads| heads.latest = latest);
                true
            }
            Err(error) => {
                tracing::error!(%error, "no checkpoint could be written; it is tried again");
                false
            }
        }
    }

    /// Tiles first, then the checkpoint over them.
    fn sign(&mut self) -> Result<SignedCheckpoint, TreeError> {
        let finished = self.full.len();
        let mut files = std::mem::take(&mut self.full);
        files.extend(self.builder.partial());
        let written = files::write_all(&self.directory, &files);
        if let Err(error) = written {
            files.truncate(finished);
            self.full = files;
            return Err(error);
        }
        let (size, root) = (self.builder.size(), self.builder.root());
        let origin = self.signer.public().name().to_owned();
        let signed = Checkpoint { origin, size, root }.sign(&self.signer)?;
        files::replace(&self.directory.join("checkpoint"), signed.note().as_bytes())?;
        self.signed = Some(signed.clone());
        for full in &files[..finished] {
            self.forget_partial(full);
        }
        Ok(signed)
    }

    /// A full file serves for all its partial ones.
    fn forget_partial(&self, full: &TreeFile) {
        let path = self.directory.join(format!("{}.p", full.path));
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "an outdated tile could not be removed");
            }
            _ => {}
        }
    }

    fn cosigned(&mut self, witness: &NoteKey, line: &SignatureLine) {
        let Some(signed) = &mut self.signed else { return };
        if !signed.add(line, witness) {
            // Over an older checkpoint: the next one is on its way to the witness.
            return;
        }
        let signed = signed.clone();
        let quorum = self.policy.as_ref().is_some_and(|policy| policy.count(signed.clone()).quorum);
        let note = signed.note();
        let mut written = files::replace(&self.directory.join("checkpoint"), note.as_bytes());
        if quorum && written.is_ok() {
            written = files::replace(&self.directory.join("witnessed"), note.as_bytes());
        }
        if let Err(error) = written {
            tracing::error!(%error, "a witness's signature could not be kept");
        }
        self.update_heads(|heads| {
            heads.latest = signed.clone();
            if quorum {
                heads.witnessed = Some(signed);
            }
        });
    }

    fn update_heads(&self, change: impl FnOnce(&mut Heads)) {
        if let Some(heads) = &self.heads {
            heads.send_modify(|heads| change(Arc::make_mut(heads)));
        }
    }

    fn wait_for_quorum(&mut self, messages: &Receiver<Message>) {
        let until = Instant::now() + LAST_COSIGNATURES;
        while self.lacks_quorum() {
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Cosigned(cosigned)) => self.cosigned(&cosigned.0, &cosigned.1),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn lacks_quorum(&self) -> bool {
        match (&self.policy, &self.signed) {
            (Some(policy), Some(signed)) => !policy.count(signed.clone()).quorum,
            _ => false,
        }
    }
}
