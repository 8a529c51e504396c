//! Thousands of random changes to a spool, a log, its tree and a bundle: verifying must name every single one.
//!
//! The seed is printed; `BUILDTRAIL_SEED` repeats a run, `BUILDTRAIL_MUTATIONS` sets how many.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what goes wrong here ends it")]

mod mutate;
mod random;
mod world;

use std::{env, path::Path};

use random::Random;
use tempfile::TempDir;
use world::World;

/// A directory in memory where the machine has one: thousands of small logs are written and synced.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// How many changes are tried when nobody says otherwise.
const MUTATIONS: usize = 2400;

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a whole number"))
}

#[test]
fn every_one_of_thousands_of_random_changes_is_named() {
    let seed = setting("BUILDTRAIL_SEED").unwrap_or_else(random::seed);
    let count = setting("BUILDTRAIL_MUTATIONS").map_or(MUTATIONS, |count| usize::try_from(count).unwrap());
    println!("seed {seed} (BUILDTRAIL_SEED repeats it), {count} changes");
    let world = World::new();
    for untouched in world.verify_all() {
        assert_eq!(untouched, Vec::<String>::new(), "before any change");
    }
    let mut random = Random::new(seed);
    let mut missed = Vec::new();
    for number in 0..count {
        let change = mutate::one(&world, &mut random);
        if change.problems.is_empty() {
            missed.push(format!("{number}: {}", change.what));
        }
    }
    assert!(missed.is_empty(), "seed {seed}: not named: {missed:#?}");
}
