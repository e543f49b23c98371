//! Random numbers that a failing test can repeat.

use super::Values;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trellink::format::DType;

/// The seed of a test; printed if the test fails.
pub struct Seed(u64);

impl Seed {
    /// `TRELLINK_TEST_SEED` if that is set, else `default`.
    pub fn new(default: u64) -> Self {
        let given = std::env::var("TRELLINK_TEST_SEED").ok();
        Seed(given.map_or(default, |seed| seed.parse().expect("a number as seed")))
    }

    /// A generator of its own for each stream of numbers.
    pub fn rng(&self, stream: u64) -> StdRng {
        StdRng::seed_from_u64(self.0 ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            super::say!("failed with TRELLINK_TEST_SEED={}", self.0);
        }
    }
}

/// Activations: uniform in ±`magnitude`, rounded to `dtype`.
pub fn activations(rng: &mut StdRng, dtype: DType, count: usize, magnitude: f32) -> Values {
    Values::of(
        dtype,
        (0..count).map(|_| rng.random_range(-magnitude..magnitude)),
    )
}
