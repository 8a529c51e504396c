//! A log on disk: its records, the files of its tree and its checkpoint.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{Expected, Question, Report, Verifier, walk};
use crate::{
    records::{Limits, Reader, RecordsError},
    tlog::{
        note::{Checkpoint, MAX_NOTE_BYTES, NoteKey, SignedCheckpoint},
        policy::Policy,
    },
};

/// Where a log and its tree are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The directory of the record files.
    pub records: PathBuf,
    /// The directory of the tree; `None`: there is none.
    pub tree: Option<PathBuf>,
}

impl Paths {
    /// Finds both, given the collector's data directory or the log directory in it.
    #[must_use]
    pub fn find(directory: &Path) -> Self {
        let is_tree = |path: &PathBuf| path.is_dir();
        let inner = directory.join("log");
        if inner.is_dir() {
            return Self { records: inner, tree: Some(directory.join("tlog")).filter(is_tree) };
        }
        let beside = directory.canonicalize().ok().and_then(|path| Some(path.parent()?.join("tlog")));
        Self { records: directory.to_owned(), tree: beside.filter(is_tree) }
    }
}

/// Whom the verifier believes.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The log's key, known from elsewhere. Without it the key beside the log is used, which proves less.
    pub log_key: Option<NoteKey>,
    /// Who must have cosigned.
    pub policy: Option<Policy>,
    /// A checkpoint that was seen earlier, and where it is from.
    pub seen: Option<(Checkpoint, String)>,
}

impl Trust {
    /// Opens a checkpoint: with the known key, else with the one that the log shows.
    ///
    /// # Errors
    /// In one sentence, why it counts for nothing.
    pub fn open(&self, note: &[u8], shown: Option<&NoteKey>) -> Result<SignedCheckpoint, String> {
        if let (Some(known), Some(shown)) = (&self.log_key, shown)
            && known != shown
        {
            return Err(format!(
                "The log's key is {shown}, not {known}: it is another log, or its key was exchanged."
            ));
        }
        let key = self.log_key.as_ref().or(shown);
        let key = key.ok_or("Nobody says which key signs the log's checkpoints.")?;
        SignedCheckpoint::open(note, key)
            .map_err(|error| format!("The newest checkpoint counts for nothing: {error}."))
    }

    /// What is to be said about a checkpoint that was opened, and what is wrong with it.
    pub fn judge(&self, checkpoint: &SignedCheckpoint, notes: &mut Vec<String>, problems: &mut Vec<String>) {
        let tree = checkpoint.checkpoint();
        notes.push(format!(
            "The newest checkpoint covers {} records of the log {:?}.",
            tree.size, tree.origin
        ));
        if self.log_key.is_none() {
            notes.push(
                "The log's key was taken from what it is to prove: whoever can write there can exchange it. Name the \
                 key that you know (--log-key)."
                    .into(),
            );
        }
        let Some(policy) = &self.policy else { return };
        let judged = policy.count(checkpoint.clone());
        let names: Vec<&str> = judged.cosigned.iter().map(|(name, _)| name.as_str()).collect();
        let names = if names.is_empty() { "nobody".into() } else { names.join(", ") };
        if judged.quorum {
            notes.push(format!("Witnesses that cosigned it: {names}; the policy asks for no more."));
        } else {
            problems.push(format!("The newest checkpoint is cosigned by {names}: the policy asks for more."));
        }
    }

    /// The trees that the log must begin with.
    #[must_use]
    pub fn expected(&self, newest: Option<&SignedCheckpoint>) -> Vec<Expected> {
        let newest = newest.map(|newest| of(newest.checkpoint(), "the newest checkpoint"));
        newest.into_iter().chain(self.seen.iter().map(|(tree, source)| of(tree, source))).collect()
    }
}

/// Verifies a log on disk with its tree.
///
/// # Errors
/// A directory or a file cannot be read. Damage is no error: it is in the report.
pub fn verify_directory(paths: &Paths, trust: &Trust, question: Question) -> Result<Report, RecordsError> {
    let reader = Reader::whole(&paths.records, Limits::default().max_record_bytes)?;
    let tree = paths.tree.as_deref();
    let shown = tree.map(shown_key).transpose()?.unwrap_or(Ok(None));
    let newest = tree.map(|tree| newest(tree, "checkpoint", &shown, trust)).transpose()?;
    let newest = newest.map(|newest| newest.unwrap_or_else(|| Err(NO_CHECKPOINT.into())));
    let checkpoint = newest.as_ref().and_then(|newest| newest.as_ref().ok());
    let mut expected = trust.expected(checkpoint);
    let witnessed = tree.map(|tree| self::newest(tree, "witnessed", &shown, trust)).transpose()?.flatten();
    let mut unwitnessed = None;
    if let Some(Ok(witnessed)) = &witnessed {
        unwitnessed = trust.policy.as_ref().filter(|policy| !policy.count(witnessed.clone()).quorum);
        expected.push(of(witnessed.checkpoint(), "the newest checkpoint that witnesses cosigned"));
    }
    let mut verifier = Verifier::new(question, expected, tree);
    if let Some(Err(problem)) = witnessed {
        verifier.problem(problem);
    }
    if unwitnessed.is_some() {
        verifier.problem(
            "The checkpoint that is kept as a witnessed one lacks the cosignatures the policy asks for."
                .into(),
        );
    }
    match &newest {
        Some(Ok(checkpoint)) => verifier.judge(trust, checkpoint),
        Some(Err(problem)) => verifier.problem(problem.clone()),
        None if trust.seen.is_none() && trust.log_key.is_none() => verifier.note(
            "There is no checkpoint beside the log: records that were cut off its end would not be missed."
                .into(),
        ),
        None => verifier.problem("There is no checkpoint beside the log.".into()),
    }
    walk(reader, verifier)
}

const NO_CHECKPOINT: &str = "The log's tree has no checkpoint: it was taken away.";

/// The key that stands beside the log's tree; an error is a problem in a sentence.
fn shown_key(tree: &Path) -> Result<Result<Option<NoteKey>, String>, RecordsError> {
    Ok(match read(&tree.join("log.vkey"))? {
        Some(text) => match written_key(&text) {
            Some(key) => Ok(Some(key)),
            None => Err("The log's public key beside its tree is damaged.".into()),
        },
        None => Err("The log's public key beside its tree is missing.".into()),
    })
}

/// A checkpoint file; `None`: there is none.
fn newest(
    tree: &Path,
    name: &str,
    shown: &Result<Option<NoteKey>, String>,
    trust: &Trust,
) -> Result<Option<Result<SignedCheckpoint, String>>, RecordsError> {
    let note = read(&tree.join(name))?;
    let opened = |note: Vec<u8>| {
        let shown = shown.as_ref().map_err(Clone::clone)?;
        trust.open(&note, shown.as_ref())
    };
    Ok(note.map(opened))
}

fn of(tree: &Checkpoint, source: &str) -> Expected {
    Expected { size: tree.size, root: tree.root, source: source.to_owned() }
}

/// The key in a file that holds nothing but it, written as the collector does.
fn written_key(text: &[u8]) -> Option<NoteKey> {
    let key: NoteKey = str::from_utf8(text).ok()?.trim_end().parse().ok()?;
    (text == format!("{key}\n").as_bytes()).then_some(key)
}

/// A small file's bytes; `None`: it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, RecordsError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let read = file.take(MAX_NOTE_BYTES as u64 + 1).read_to_end(&mut bytes);
            read.map_err(RecordsError::io("read", path))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordsError::io("open", path)(error)),
    }
}
