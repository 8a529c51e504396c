//! Remembers across restarts which record the collector does not have yet.
//!
//! The file is 8 bytes of record index (little-endian) and 4 bytes CRC-32C of them, replaced by rename. It is a hint:
//! when it is missing or damaged, sending starts with the oldest record kept, and the collector knows duplicates.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

const NAME: &str = "acknowledged";

pub(super) fn read(directory: &Path) -> u64 {
    let Ok(bytes) = fs::read(directory.join(NAME)) else { return 0 };
    let Ok(bytes) = <[u8; 12]>::try_from(bytes) else { return 0 };
    let (index, checksum) = bytes.split_at(8);
    if crc32c::crc32c(index).to_le_bytes() != checksum {
        return 0;
    }
    index.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

pub(super) fn write(directory: &Path, index: u64) -> io::Result<()> {
    let index = index.to_le_bytes();
    let new = directory.join("acknowledged.new");
    let mut file = File::create(&new)?;
    file.write_all(&[&index[..], &crc32c::crc32c(&index).to_le_bytes()].concat())?;
    file.sync_all()?;
    fs::rename(new, directory.join(NAME))?;
    File::open(directory)?.sync_all()
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
        for damaged in [&b""[..], b"short", &[7; 12], &[0; 13]] {
            fs::write(folder.path().join(NAME), damaged).unwrap();
            assert_eq!(read(folder.path()), 0, "{damaged:?}");
        }
    }
}
