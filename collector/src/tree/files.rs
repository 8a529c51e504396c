//! Writing files so that after a crash each is there as a whole or as it was before.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use buildtrail_evidence::tlog::builder::TreeFile;

use super::TreeError;

/// Writes files below `root` and makes them durable together.
pub(crate) fn write_all(root: &Path, files: &[TreeFile]) -> Result<(), TreeError> {
    let mut directories = BTreeSet::new();
    for file in files {
        let path = root.join(&file.path);
        if let Some(above) = path.parent() {
            make_directory(above)?;
            directories
                .extend(above.ancestors().take_while(|above| above.starts_with(root)).map(Path::to_owned));
        }
        put(&path, &file.bytes, 0o644)?;
    }
    directories.iter().try_for_each(|directory| sync_directory(directory))
}

/// Replaces one file, durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TreeError> {
    put(path, bytes, 0o644)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes a file that only its owner can read, durably.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TreeError> {
    put(path, bytes, 0o600)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<(), TreeError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(TreeError::io("make", path))
}

/// Reads a file; `None`: there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, TreeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TreeError::io("read", path)(error)),
    }
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TreeError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        let opened = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&unfinished);
        let mut file = opened?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().map_err(|error| {
        // Whatever it was, half a file helps nobody; on a full disk its room may be needed.
        let _ = fs::remove_file(&unfinished);
        TreeError::io("write", path)(error)
    })
}

fn sync_directory(directory: &Path) -> Result<(), TreeError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(TreeError::io("sync", directory))
}
