//! Random activations and weights, the same in every run.

use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use trellink::format::{Bits, Codebook, DType, TILE};
use trellink::weights::{Bias, Linear, Scales};

/// The seed of everything random in this program.
const SEED: u64 = 0x7472_656c_6c69_6e6b;

/// A generator of a run that has a seed of its own; streams of different `purpose` differ.
pub fn seeded(seed: u64, purpose: u64) -> StdRng {
    // By an odd number, so that neighbouring seeds and purposes do not meet.
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

/// A generator that always gives the same numbers; streams of different `purpose` differ.
pub fn generator(purpose: u64) -> StdRng {
    StdRng::seed_from_u64(SEED ^ purpose)
}

/// `len` values between −1 and 1.
pub fn activations(random: &mut StdRng, len: usize) -> Vec<f16> {
    let value = |_| f16::from_f32(random.random_range(-1.0..1.0));
    (0..len).map(value).collect()
}

/// The parts of a linear with random trellis words; every bit pattern is a valid tile.
pub struct RandomLinear {
    k: usize,
    n: usize,
    bits: Bits,
    codebook: Codebook,
    trellis: Vec<u8>,
    suh: Vec<u8>,
    svh: Vec<u8>,
    bias: Option<(DType, Vec<u8>)>,
}

impl RandomLinear {
    /// Weights for `k` × `n` channels, multiples of 128; the same each time, without a bias.
    pub fn new(k: usize, n: usize, bits: Bits, codebook: Codebook) -> Self {
        Self::from(&mut generator(1), (k, n), (bits, codebook), None)
    }

    /// Weights for `k` × `n` channels, multiples of 128, with a bias of this type if there is one.
    ///
    /// Input scales are real values around ±1. Output scales are small enough that outputs are
    /// around 1/64 and thousands of them can be added up in f16.
    pub fn from(
        random: &mut StdRng,
        (k, n): (usize, usize),
        (bits, codebook): (Bits, Codebook),
        bias: Option<DType>,
    ) -> Self {
        let mut trellis = vec![0; k / TILE * (n / TILE) * bits.tile_bytes()];
        random.fill_bytes(&mut trellis);
        let output_scale = 1.0 / (64.0 * (k as f32).sqrt());
        RandomLinear {
            k,
            n,
            bits,
            codebook,
            trellis,
            suh: scales(random, k, 1.0),
            svh: scales(random, n, output_scale),
            bias: bias.map(|dtype| (dtype, bias_bytes(random, dtype, n))),
        }
    }

    /// The linear itself.
    pub fn view(&self) -> trellink::Result<Linear<'_>> {
        let bias = self.bias.as_ref();
        let bias = bias.map(|(dtype, bytes)| Bias::new(bytes, *dtype));
        Linear::from_parts(
            "random",
            self.k,
            self.n,
            self.bits,
            self.codebook,
            &self.trellis,
            Scales::from_f16_bytes(&self.suh)?,
            Scales::from_f16_bytes(&self.svh)?,
            bias.transpose()?,
        )
    }
}

/// Values of the size of an output.
fn bias_bytes(random: &mut StdRng, dtype: DType, n: usize) -> Vec<u8> {
    let value = |_| random.random_range(-1.0f32..1.0) / 64.0;
    let bytes = |value: f32| match dtype {
        DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        DType::F32 => value.to_le_bytes().to_vec(),
    };
    (0..n).map(value).flat_map(bytes).collect()
}

/// Scales between 0.75 and 1.25 times `size`, of either sign.
fn scales(random: &mut StdRng, channels: usize, size: f32) -> Vec<u8> {
    let scale = |_| {
        let magnitude = size * random.random_range(0.75..1.25);
        let signed = if random.random() {
            magnitude
        } else {
            -magnitude
        };
        f16::from_f32(signed).to_le_bytes()
    };
    (0..channels).flat_map(scale).collect()
}
