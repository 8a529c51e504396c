//! Tells the eBPF programs which files to report.
//!
//! In: files, directories and names, as they become known. Out: entries in the programs' maps. Must never take away what
//! is still a secret: a file that is gone leaves its bit behind, which costs a look into a map and nothing else.

use aya::maps::{Array, HashMap, MapData, MapError};
use buildtrail_agent_abi::{FILTER_WORDS, FileKey, FileMatch, NameKey, filter_bit, name_key};
use tracing::warn;

use super::FileId;

/// The programs' maps.
pub struct KernelWatch {
    filter: Array<MapData, [u64; FILTER_WORDS]>,
    files: HashMap<MapData, PodFileKey, u16>,
    names: HashMap<MapData, PodNameKey, u16>,
    bits: Box<[u64; FILTER_WORDS]>,
}

impl std::fmt::Debug for KernelWatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KernelWatch").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodFileKey(FileKey);

// SAFETY: repr(C) of integers without padding; any bytes are a valid value.
unsafe impl aya::Pod for PodFileKey {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodNameKey(NameKey);

// SAFETY: as above.
unsafe impl aya::Pod for PodNameKey {}

impl KernelWatch {
    /// Takes over the programs' maps.
    ///
    /// # Errors
    ///
    /// When one of them is not what the programs declare.
    pub fn new(
        filter: aya::maps::Map,
        files: aya::maps::Map,
        names: aya::maps::Map,
    ) -> Result<Self, MapError> {
        let filter: Array<_, _> = Array::try_from(filter)?;
        // An earlier agent's bits stay.
        let bits = Box::new(filter.get(&0, 0)?);
        Ok(Self { filter, files: HashMap::try_from(files)?, names: HashMap::try_from(names)?, bits })
    }

    /// Reports accesses to this file.
    pub fn add_file(&mut self, file: FileId) {
        self.add_inode(file, FileMatch::FILE);
    }

    /// No longer reports accesses to this file. Its bit stays.
    pub fn remove_file(&mut self, file: FileId) {
        let Ok(device) = u32::try_from(file.device) else { return };
        // It may never have been there: the map takes only so many.
        let _absent = self.files.remove(&PodFileKey(FileKey::new(device, file.inode)));
    }

    /// Reports accesses to whatever is in this directory.
    pub fn add_directory(&mut self, directory: FileId) {
        self.add_inode(directory, FileMatch::DIRECTORY);
    }

    /// Reports accesses to files of this name, wherever they are.
    pub fn add_name(&mut self, name: &[u8]) {
        let key = name_key(name);
        let added = self.names.insert(PodNameKey(key), FileMatch::NAME, 0);
        self.finish(key.seed(), added);
    }

    fn add_inode(&mut self, file: FileId, kind: u16) {
        // The kernel's own device numbers have 32 bits (include/linux/kdev_t.h).
        let Ok(device) = u32::try_from(file.device) else { return };
        let key = FileKey::new(device, file.inode);
        let added = self.files.insert(PodFileKey(key), kind, 0);
        self.finish(key.seed(), added);
    }

    /// The entry stands in its map before its bit leads there.
    fn finish(&mut self, seed: u64, added: Result<(), MapError>) {
        let (word, bit) = filter_bit(seed);
        let set = added.and_then(|()| {
            if self.bits[word] & bit != 0 {
                return Ok(());
            }
            self.bits[word] |= bit;
            self.filter.set(0, *self.bits, 0)
        });
        if let Err(error) = set {
            warn!(%error, "a secret file is watched by fanotify only: the programs' maps take no more");
        }
    }
}
