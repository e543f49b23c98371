//! Random layers of a given shape, 4 bits, mul1, and their inputs.

pub use crate::common::RandomLinear;
use half::f16;
use rand::{rngs::StdRng, Rng, SeedableRng};
use trellink::format::Codebook;

/// A linear whose outputs are about as large as its inputs.
pub fn model(k: usize, n: usize) -> RandomLinear {
    let mut rng = StdRng::seed_from_u64(0);
    let format = (Codebook::Mul1, "4".parse().expect("a bitrate"));
    RandomLinear::new(&mut rng, format, k, n).tame(&mut rng)
}

/// Random activations.
pub fn activations(len: usize) -> Vec<f16> {
    let mut rng = StdRng::seed_from_u64(1);
    let value = |_| f16::from_f32(rng.random_range(-1.0..1.0));
    (0..len).map(value).collect()
}
