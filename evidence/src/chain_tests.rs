use super::*;
use crate::{
    batch::{self, LossTotals, Sealer},
    testing::{boot, heartbeat, key, seal, sealer},
};

fn next(sealer: &mut Sealer) -> OpenedBatch {
    batch::open(&seal(sealer).batch, &key().public()).unwrap()
}

#[test]
fn batches_in_order_are_new_and_repeated_ones_duplicates() {
    let (mut sealer, mut chain) = (sealer(), Chain::default());
    let batches: Vec<_> = (0..5).map(|_| next(&mut sealer)).collect();
    for batch in &batches {
        assert_eq!(chain.accept(batch), Ok(Accepted::New));
        assert_eq!(chain.accept(&batches[0]), Ok(Accepted::Duplicate));
        assert_eq!(chain.accept(batch), Ok(Accepted::Duplicate));
    }
    assert_eq!(chain.head(), sealer.head());
}

#[test]
fn a_skipped_batch_is_a_gap_until_it_comes() {
    let (mut sealer, mut chain) = (sealer(), Chain::default());
    let (first, second) = (next(&mut sealer), next(&mut sealer));
    assert_eq!(chain.accept(&second), Err(ChainError::Gap { expected: 1, number: 2 }));
    assert_eq!(chain.accept(&first), Ok(Accepted::New));
    assert_eq!(chain.accept(&second), Ok(Accepted::New));
}

#[test]
fn a_second_history_is_a_fork() {
    let (mut one, mut two, mut chain) = (sealer(), sealer(), Chain::default());
    chain.accept(&next(&mut one)).unwrap();
    two.seal(&boot("b1"), vec![heartbeat(5)], LossTotals::default());
    let foreign = next(&mut two);
    assert_eq!(chain.accept(&foreign), Err(ChainError::Fork { number: 2 }));
    chain.accept(&next(&mut one)).unwrap();
    assert_eq!(chain.accept(&foreign), Err(ChainError::Fork { number: 2 }));
}

#[test]
fn events_without_their_predecessors_are_refused() {
    let (mut sealer, mut chain) = (sealer(), Chain::default());
    chain.accept(&next(&mut sealer)).unwrap();
    let mut head = sealer.head().clone();
    head.last_sequence = 7;
    sealer.rewind(head);
    let expected = ChainError::Sequence { number: 2, expected: 3, found: 8 };
    assert_eq!(chain.accept(&next(&mut sealer)), Err(expected));
}

#[test]
fn a_resumed_chain_goes_on_and_says_when_it_cannot_know() {
    let mut sealer = sealer();
    let old = next(&mut sealer);
    let last = next(&mut sealer);
    let mut chain = Chain::resume(sealer.head().clone());
    assert_eq!(chain.accept(&last), Ok(Accepted::Duplicate));
    assert_eq!(chain.accept(&old), Err(ChainError::Old { number: 1 }));
    assert_eq!(chain.accept(&next(&mut sealer)), Ok(Accepted::New));
}

#[test]
fn a_gap_is_let_through_where_the_host_says_that_it_lost_the_batches() {
    let (mut sealer, mut chain) = (sealer(), Chain::default());
    next(&mut sealer);
    let mut said = next(&mut sealer);
    said.behind_loss = true;
    assert_eq!(chain.accept(&said), Ok(Accepted::NewBehindLoss));
    assert_eq!(chain.accept(&said), Ok(Accepted::Duplicate));
    next(&mut sealer);
    assert_eq!(chain.accept(&next(&mut sealer)), Err(ChainError::Gap { expected: 3, number: 4 }));
    // The word changes nothing for a batch that follows, or that does not fit.
    let (mut sealer, mut other) = (self::sealer(), Chain::default());
    let first = OpenedBatch { behind_loss: true, ..next(&mut sealer) };
    assert_eq!(other.accept(&first), Ok(Accepted::New));
    let forked = OpenedBatch { digest: Digest::of(b"another"), ..first };
    assert_eq!(other.accept(&forked), Err(ChainError::Fork { number: 1 }));
}

#[test]
fn after_damage_one_gap_is_let_through() {
    let (mut sealer, mut chain) = (sealer(), Chain::default());
    next(&mut sealer);
    chain.mark_damaged();
    assert_eq!(chain.accept(&next(&mut sealer)), Ok(Accepted::New));
    next(&mut sealer);
    assert_eq!(chain.accept(&next(&mut sealer)), Err(ChainError::Gap { expected: 3, number: 4 }));
}
