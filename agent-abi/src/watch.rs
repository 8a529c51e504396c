//! Which files the programs look for: first a bit in a table that tells most other files away, then a map.

/// 64-bit words of the table: 32,768 bits, so that a thousand entries let some 3 % of other files pass to the map.
pub const FILTER_WORDS: usize = 512;
/// Leading bytes of a name that decide.
const NAME_BYTES: usize = 8;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FileKey {
    /// Inode number.
    pub inode: u64,
    /// Device, kernel encoding.
    pub device: u32,
    /// Zero.
    pub padding: u32,
}

/// A name's length and first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NameKey {
    /// The first eight bytes as the processor's integer; missing ones are zero.
    pub start: u64,
    /// Bytes of the whole name.
    pub length: u64,
}

/// The key of a name.
#[must_use]
pub fn name_key(name: &[u8]) -> NameKey {
    let mut start = [0; NAME_BYTES];
    let used = name.len().min(NAME_BYTES);
    start[..used].copy_from_slice(&name[..used]);
    NameKey { start: u64::from_ne_bytes(start), length: name.len() as u64 }
}

impl FileKey {
    /// The key of an inode on a device.
    #[must_use]
    pub const fn new(device: u32, inode: u64) -> Self {
        Self { inode, device, padding: 0 }
    }

    /// The number whose bit is set for this file. The device is left out: it costs two more loads on every open.
    #[must_use]
    #[inline]
    pub const fn seed(&self) -> u64 {
        self.inode
    }
}

impl NameKey {
    /// The number whose bit is set for this name.
    #[must_use]
    #[inline]
    pub const fn seed(&self) -> u64 {
        self.start ^ self.length.rotate_left(32)
    }
}

/// Word and bit in the table for a seed (Fibonacci hashing: the top bits of a product are the best mixed).
#[must_use]
#[inline]
pub const fn filter_bit(seed: u64) -> (usize, u64) {
    let hash = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49;
    ((hash >> 6) as usize & (FILTER_WORDS - 1), 1 << (hash & 63))
}

const _: () = assert!(size_of::<FileKey>() == 16 && size_of::<NameKey>() == 16);
