//! Random numbers that can be had again: every test that uses them prints its seed.

use std::{env, time::UNIX_EPOCH};

/// Environment variable that sets the seed.
pub const SEED: &str = "BUILDTRAIL_SEED";

/// The same numbers for the same seed (`SplitMix64`).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with the seed of [`SEED`], or another one each time, and prints it.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "a failure can be repeated only by its seed")]
    pub fn announced() -> Self {
        let given = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs()));
        println!("seed {seed}; {SEED}={seed} uses it again");
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
