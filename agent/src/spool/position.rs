//! Remembers across restarts which record the collector does not have yet.
//!
//! The file holds 8 bytes of record index (little-endian). It is a hint: when it is missing or damaged, sending starts
//! with the oldest record kept, and the collector knows duplicates.

use std::{io, path::Path};

use super::small_file;

const NAME: &str = "acknowledged";

pub(super) fn read(directory: &Path) -> u64 {
    let content = small_file::read(&directory.join(NAME)).unwrap_or_default();
    content.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

pub(super) fn write(directory: &Path, index: u64) -> io::Result<()> {
    small_file::replace(&directory.join(NAME), &index.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_and_a_damaged_one_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), 0);
        write(folder.path(), 77).unwrap();
        assert_eq!(read(folder.path()), 77);
        small_file::replace(&folder.path().join(NAME), b"not 8 bytes").unwrap();
        assert_eq!(read(folder.path()), 0);
    }
}
