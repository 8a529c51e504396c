//! Proofs: that a leaf stands in a tree, that one tree is the beginning of another (RFC 6962), and the text form of the
//! former with its checkpoint (C2SP tlog-proof).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tlog_tiles::Hash;

use super::note::{Checkpoint, MAX_NOTE_BYTES};
use crate::digest::Digest;

/// Most hashes in a proof.
pub const MAX_HASHES: usize = 63;
const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The hashes do not lead from the leaf to the root, or from one root to the other.
    #[error(
        "the proof does not fit the checkpoint: what it is for is not in the tree, or one of the two was altered"
    )]
    Wrong,
    /// Not the text form of a proof.
    #[error("the proof is malformed; a tlog-proof begins with the line {FIRST_LINE}")]
    Malformed,
}

/// Checks that the leaf with this hash ([`crate::merkle::leaf_hash`]) has number `index` in the tree.
///
/// # Errors
/// [`ProofError::Wrong`].
pub fn check_inclusion(
    leaf: Digest,
    index: u64,
    path: &[Digest],
    tree: &Checkpoint,
) -> Result<(), ProofError> {
    if index >= tree.size || path.len() > MAX_HASHES {
        return Err(ProofError::Wrong);
    }
    tlog_tiles::check_record(&hashes(path), tree.size, Hash(tree.root.0), index, Hash(leaf.0))
        .map_err(|_| ProofError::Wrong)
}

/// Checks that the tree of `old_size` leaves with `old_root` is the beginning of `tree`.
///
/// # Errors
/// [`ProofError::Wrong`].
pub fn check_consistency(
    old_size: u64,
    old_root: Digest,
    path: &[Digest],
    tree: &Checkpoint,
) -> Result<(), ProofError> {
    if old_size == 0 {
        // Everything begins with the empty tree.
        let empty = old_root == Digest::of(&[]) && path.is_empty();
        return if empty { Ok(()) } else { Err(ProofError::Wrong) };
    }
    if old_size > tree.size || path.len() > MAX_HASHES {
        return Err(ProofError::Wrong);
    }
    let (new, old) = (Hash(tree.root.0), Hash(old_root.0));
    tlog_tiles::check_tree(&hashes(path), tree.size, new, old_size, old).map_err(|_| ProofError::Wrong)
}

fn hashes(path: &[Digest]) -> Vec<Hash> {
    path.iter().map(|digest| Hash(digest.0)).collect()
}

/// One leaf's place in a signed tree, to be kept beside the leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// The leaf's number.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub path: Vec<Digest>,
    /// The signed note.
    pub checkpoint: String,
}

impl TlogProof {
    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let path: String = self.path.iter().map(|hash| encode_hash(*hash) + "\n").collect();
        format!("{FIRST_LINE}\nindex {}\n{path}\n{}", self.index, self.checkpoint)
    }

    /// Reads the text form; extra data in it is left out. Nothing is verified.
    ///
    /// # Errors
    /// [`ProofError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let malformed = ProofError::Malformed;
        if text.len() > MAX_NOTE_BYTES * 2 {
            return Err(malformed);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed);
        }
        lines.next_if(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(parse_decimal);
        let path: Vec<Digest> = lines
            .map(decode_hash)
            .collect::<Option<_>>()
            .filter(|path: &Vec<_>| path.len() <= MAX_HASHES)
            .ok_or(malformed)?;
        Ok(Self { index: index.ok_or(malformed)?, path, checkpoint: checkpoint.to_owned() })
    }
}

/// Base64, as hashes are written in proofs.
#[must_use]
pub fn encode_hash(hash: Digest) -> String {
    BASE64_STANDARD.encode(hash.as_bytes())
}

/// The other way round.
#[must_use]
pub fn decode_hash(line: &str) -> Option<Digest> {
    Digest::try_from(&BASE64_STANDARD.decode(line).ok()?[..]).ok()
}

/// A number without sign or leading zeros.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}
