//! Numbers that need not be secret: weighted destinations, request ids. No lock, no system call.

use std::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// A generator shared by all requests (SplitMix64 over a counter, seeded once).
#[derive(Debug)]
pub struct Dice {
    state: AtomicU64,
}

impl Dice {
    /// Seeded by the process's random hash keys.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(std::hash::RandomState::new().build_hasher().finish())
    }

    /// The same throws for the same seed: for tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// Any number.
    #[must_use]
    pub fn throw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A request id: a version 4 UUID by shape.
    #[must_use]
    pub fn id(&self) -> String {
        let bits = u128::from(self.throw()) << 64 | u128::from(self.throw());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
