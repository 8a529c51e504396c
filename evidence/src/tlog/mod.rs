//! The collector's Merkle tree as everybody else sees it: checkpoints, tiles, proofs, witnesses.
//!
//! In: files or bytes in the formats of C2SP (tlog-checkpoint, tlog-tiles, tlog-proof, tlog-cosignature, tlog-policy), from
//! anybody. Out: what they prove. [`note`] is signatures, [`tiles`] is the tree on disk, [`builder`] makes it, [`proof`] is one leaf's or one
//! tree's place in it, [`policy`] is who must have cosigned. `docs/formats/tree.md` has the details and test vectors.
//! Must never take a tile, a proof or a size for true before it was checked against a signed root.

pub mod builder;
pub mod note;
pub mod policy;
pub mod proof;
pub mod tiles;

/// What stands in the tree for a record number that never held a readable record.
pub const NO_RECORD_LEAF: [u8; 1] = [0];

/// Largest tree that is believed in. Keeps arithmetic on hostile sizes far from overflow.
pub const MAX_SIZE: u64 = 1 << 48;

#[cfg(test)]
mod tests;
