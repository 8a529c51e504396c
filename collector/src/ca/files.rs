//! Writing certificates and keys: never over something, keys only for their owner.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::CaError;

pub(super) fn ensure_absent(directory: &Path, names: &[&str]) -> Result<(), CaError> {
    match names.iter().map(|name| directory.join(name)).find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(CaError::Exists(path)),
        None => Ok(()),
    }
}

pub(super) fn make_directory(directory: &Path) -> Result<(), CaError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| CaError::Io { action: "make", path: directory.to_owned(), source })
}

pub(super) fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| CaError::Io { action: "read", path: path.to_owned(), source })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), CaError> {
    write_with_mode(path, text, 0o644)
}

pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), CaError> {
    write_with_mode(path, text, 0o600)
}

fn write_with_mode(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => CaError::Exists(path.to_owned()),
        _ => CaError::Io { action: "write", path: path.to_owned(), source },
    })
}
