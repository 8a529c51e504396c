//! What this profile has seen of a log: its key and its newest checkpoint. A log that does not continue it was rolled
//! back, or shows different histories to different people.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use buildtrail_evidence::tlog::note::{Checkpoint, NoteKey, SignedCheckpoint};

/// What is remembered.
pub(super) struct Seen {
    directory: PathBuf,
    pub(super) log_key: Option<NoteKey>,
    pub(super) checkpoint: Option<(Checkpoint, String)>,
}

impl Seen {
    /// Reads what is remembered in a profile.
    pub(super) fn read(profile: &Path) -> Result<Self> {
        let directory = profile.join("seen");
        let (key, checkpoint) = (directory.join("log.vkey"), directory.join("checkpoint"));
        let log_key = read(&key)?.map(|text| text.trim().parse::<NoteKey>()).transpose();
        let damaged = || format!("{} is damaged: write the log's key there anew", key.display());
        let log_key = log_key.with_context(damaged)?;
        let checkpoint = checkpoint.exists().then(|| from_file(&checkpoint)).transpose()?;
        Ok(Self { directory, log_key, checkpoint })
    }

    /// Remembers a checkpoint that was verified, and the key that it was verified with.
    pub(super) fn write(&self, log_key: &NoteKey, checkpoint: &SignedCheckpoint) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        replace(&self.directory.join("log.vkey"), &format!("{log_key}\n"))?;
        replace(&self.directory.join("checkpoint"), &checkpoint.note())
    }
}

/// Reads a checkpoint that was seen. It is believed as it is: whoever names it has kept it.
pub(super) fn from_file(path: &Path) -> Result<(Checkpoint, String)> {
    let shown = path.display();
    let note = fs::read(path).with_context(|| format!("cannot read the checkpoint {shown}"))?;
    let checkpoint = Checkpoint::claimed(&note).with_context(|| format!("{shown} is no checkpoint"))?;
    Ok((checkpoint, format!("the checkpoint seen before ({shown})")))
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}
