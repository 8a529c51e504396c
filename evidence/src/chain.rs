//! The order of one host's batches: each must follow the one before, or say why it cannot.

use std::collections::VecDeque;

use crate::{
    batch::{ChainHead, OpenedBatch},
    digest::Digest,
};

/// How many of the latest batches' digests are remembered to tell a duplicate from a fork.
pub const WINDOW: usize = 256;

/// What to do with a batch that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The next one: keep it.
    New,
    /// The host says that all between the head and this batch is lost there and will never come: keep it, and the word.
    NewBehindLoss,
    /// Known already, byte for byte: acknowledge it again, keep nothing.
    Duplicate,
}

/// Why a batch does not fit its host's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another batch of the same number is known, or the predecessor is another one.
    #[error(
        "batch {number} contradicts the chain this host already has here: two histories exist under one host key \
         (a restored disk image or a copied key?); give the host a new certificate"
    )]
    Fork {
        /// The batch's number.
        number: u64,
    },
    /// Batches before this one are missing.
    #[error(
        "batch {number} came, but {expected} is the next one: batches in between are missing; send them first"
    )]
    Gap {
        /// The number that would fit.
        expected: u64,
        /// The batch's number.
        number: u64,
    },
    /// The batches fit but their events do not: numbers are missing or repeated.
    #[error("batch {number} starts with event {found} of its boot, but event {expected} is the next one")]
    Sequence {
        /// The batch's number.
        number: u64,
        /// The sequence that would fit.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// Older than the last [`WINDOW`] batches: whether it is a duplicate is not known here.
    #[error("batch {number} is older than the ones remembered here")]
    Old {
        /// The batch's number.
        number: u64,
    },
}

/// The state of one host's chain.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    head: ChainHead,
    recent: VecDeque<(u64, Digest)>,
    damaged: bool,
}

impl Chain {
    /// A chain that continues after `head`; [`Chain::default`] starts at the first batch.
    #[must_use]
    pub fn resume(head: ChainHead) -> Self {
        let recent = if head.number == 0 { VecDeque::new() } else { [(head.number, head.digest)].into() };
        Self { head, recent, damaged: false }
    }

    /// The last batch that was accepted.
    #[must_use]
    pub fn head(&self) -> &ChainHead {
        &self.head
    }

    /// Records between the head and the next batch were lost *here*, so the host cannot fill the gap: the next batch
    /// may have any higher number. The gap stays visible to [`crate::verify`].
    pub fn mark_damaged(&mut self) {
        self.damaged = true;
    }

    /// Checks a batch without moving on.
    ///
    /// # Errors
    /// The batch neither follows the head nor repeats a recent batch.
    pub fn check(&self, batch: &OpenedBatch) -> Result<Accepted, ChainError> {
        let number = batch.header.number;
        if number <= self.head.number {
            return self.check_known(number, batch.digest);
        }
        let expected = self.head.number + 1;
        if number > expected {
            return match batch.behind_loss {
                true => Ok(Accepted::NewBehindLoss),
                false if self.damaged => Ok(Accepted::New),
                false => Err(ChainError::Gap { expected, number }),
            };
        }
        if batch.header.previous != self.head.digest.as_bytes() {
            return Err(ChainError::Fork { number });
        }
        let same_boot = batch.header.boot_id == self.head.boot_id;
        let expected = if same_boot { self.head.last_sequence.saturating_add(1) } else { 1 };
        let found = batch.header.first_sequence;
        if found == expected {
            Ok(Accepted::New)
        } else {
            Err(ChainError::Sequence { number, expected, found })
        }
    }

    /// Checks a batch and, when it is new, moves the head to it.
    ///
    /// # Errors
    /// As [`Chain::check`]; the chain is then unchanged.
    pub fn accept(&mut self, batch: &OpenedBatch) -> Result<Accepted, ChainError> {
        let accepted = self.check(batch)?;
        if accepted != Accepted::Duplicate {
            self.advance(batch);
        }
        Ok(accepted)
    }

    /// Moves the head to `batch` unchecked: for one that [`Chain::check`] found new, or to go on after a gap that was
    /// reported.
    pub fn advance(&mut self, batch: &OpenedBatch) {
        self.head = ChainHead::after(&batch.header, batch.digest);
        self.damaged = false;
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((self.head.number, self.head.digest));
    }

    fn check_known(&self, number: u64, digest: Digest) -> Result<Accepted, ChainError> {
        match self.recent.iter().rev().find(|(known, _)| *known == number) {
            Some((_, known)) if *known == digest => Ok(Accepted::Duplicate),
            Some(_) => Err(ChainError::Fork { number }),
            None => Err(ChainError::Old { number }),
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
