//! Small files beside the records that are replaced as a whole: content, then 4 bytes CRC-32C (little-endian) of it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// The content; `None` when the file is missing or damaged.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let checksum = bytes.split_off(bytes.len().checked_sub(4)?);
    (crc32c::crc32c(&bytes).to_le_bytes()[..] == checksum).then_some(bytes)
}

/// After a crash either the old content is there or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&[content, &crc32c::crc32c(content).to_le_bytes()].concat())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_directory_of(path)
}

/// Deletes the file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_directory_of(path)),
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_and_damage_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("name");
        assert_eq!(read(&path), None);
        for content in [&b"first"[..], b"", b"second"] {
            replace(&path, content).unwrap();
            assert_eq!(read(&path).as_deref(), Some(content));
        }
        for damaged in [&b""[..], b"short", &[7; 12]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path), None, "{damaged:?}");
        }
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
