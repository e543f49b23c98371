//! Random layers of a given shape, 4 bits, mul1.

use half::f16;
use rand::{rngs::StdRng, Rng, SeedableRng};
use trellink::format::{Bits, Codebook};
use trellink::weights::{Linear, Scales};
use trellink::Result;

/// The bytes of a linear, as a checkpoint would hold them.
pub struct Model {
    pub k: usize,
    pub n: usize,
    trellis: Vec<u8>,
    suh: Vec<u8>,
    svh: Vec<u8>,
}

impl Model {
    pub fn new(k: usize, n: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(0);
        let mut trellis = vec![0; k * n / 2];
        rng.fill(&mut trellis[..]);
        let mut scales = |len| -> Vec<u8> {
            let scale = |_| f16::from_f32(rng.random_range(0.5..1.5)).to_le_bytes();
            (0..len).flat_map(scale).collect()
        };
        let (suh, svh) = (scales(k), scales(n));
        Model {
            k,
            n,
            trellis,
            suh,
            svh,
        }
    }

    pub fn linear(&self) -> Result<Linear<'_>> {
        Linear::from_parts(
            "random",
            self.k,
            self.n,
            "4".parse::<Bits>()?,
            Codebook::Mul1,
            &self.trellis,
            Scales::from_f16_bytes(&self.suh)?,
            Scales::from_f16_bytes(&self.svh)?,
            None,
        )
    }
}

/// Random activations.
pub fn activations(len: usize) -> Vec<f16> {
    let mut rng = StdRng::seed_from_u64(1);
    let value = |_| f16::from_f32(rng.random_range(-1.0..1.0));
    (0..len).map(value).collect()
}
