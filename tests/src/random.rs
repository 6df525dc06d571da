//! A small seeded generator (SplitMix64), so that a failing run can be repeated.

use std::hash::{BuildHasher, Hasher, RandomState};

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the hasher keys of the standard library, which the system's randomness fills.
    pub fn fresh() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// The seed in `LISTMILL_TEST_SEED`, else a fresh one; printed, so that it can be set.
    pub fn printed() -> Self {
        let seed = match std::env::var("LISTMILL_TEST_SEED") {
            Ok(text) => text.parse().expect("LISTMILL_TEST_SEED is a number"),
            Err(_) => Self::fresh().number(),
        };
        eprintln!("random choices: repeat with LISTMILL_TEST_SEED={seed}");
        Self::seeded(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index")
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
