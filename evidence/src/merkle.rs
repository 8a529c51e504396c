//! RFC 6962 tree hashing: leaves and nodes are hashed with different prefixes, so that neither can pass for the other.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// SHA-256 of a zero byte and `data`.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    Digest(hasher.finalize().into())
}

/// SHA-256 of a one byte and the two children.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Digest(hasher.finalize().into())
}

/// The right edge of a growing tree: all that is needed to add leaves and to know the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees, largest first: one per bit of `size`.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// Adds a leaf by its hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all leaves so far; SHA-256 of nothing for an empty tree.
    #[must_use]
    pub fn root(&self) -> Digest {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return Digest::of(&[]) };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The hashes beside the way from leaf `index` to the root over all leaves, from the leaf's sibling up. Empty where
/// there is no such leaf.
#[must_use]
pub fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    let mut path = Vec::new();
    descend(leaves, index, &mut path);
    path
}

fn descend(leaves: &[Digest], index: usize, path: &mut Vec<Digest>) {
    if leaves.len() < 2 || index >= leaves.len() {
        return;
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let beside = if index < left.len() {
        descend(left, index, path);
        right
    } else {
        descend(right, index - left.len(), path);
        left
    };
    path.push(root(beside));
}

fn root(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962, section 2.1, word for word.
    fn defined(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(&[]),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&defined(left), &defined(right))
            }
        }
    }

    #[test]
    fn the_frontier_has_the_root_that_rfc_6962_defines_at_every_size() {
        let (mut frontier, mut leaves) = (Frontier::default(), Vec::new());
        for size in 0_u64..300 {
            assert_eq!((frontier.size(), frontier.root()), (size, defined(&leaves)));
            let leaf = leaf_hash(&size.to_be_bytes());
            leaves.push(leaf);
            frontier.push(leaf);
        }
    }

    #[test]
    fn the_published_vectors_hold() {
        // SHA-256 of nothing and of one zero byte: the empty tree and the empty leaf.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Frontier::default().root().to_string(), empty);
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_string(), leaf);
    }
}
