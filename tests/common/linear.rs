//! Linears from random numbers and from the golden files, and how they are cut into shards.

use super::Values;
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use safetensors::SafeTensors;
use std::path::PathBuf;
use trellink::format::{Bits, Codebook, DType, TILE};
use trellink::weights::{Bias, Linear, Scales};
use trellink::Split;

/// Every codebook at every bitrate that the format defines for it.
pub fn formats() -> Vec<(Codebook, Bits)> {
    let all = Codebook::ALL
        .into_iter()
        .flat_map(|codebook| Bits::ALL.map(|bits| (codebook, bits)));
    let formats: Vec<_> = all
        .filter(|(codebook, bits)| codebook.supports(*bits))
        .collect();
    assert_eq!(formats.len(), 27);
    formats
}

/// The bytes of a linear with random words, real-valued scales and, if wanted, a bias.
pub struct RandomLinear {
    pub k: usize,
    pub n: usize,
    pub codebook: Codebook,
    pub bits: Bits,
    trellis: Vec<u8>,
    suh: Vec<u8>,
    svh: Vec<u8>,
    bias: Option<(DType, Vec<u8>)>,
}

impl RandomLinear {
    /// Scales of either sign with magnitudes from 0.5 to 2; no bias.
    pub fn new(rng: &mut StdRng, (codebook, bits): (Codebook, Bits), k: usize, n: usize) -> Self {
        let mut trellis = vec![0; k / TILE * (n / TILE) * bits.tile_bytes()];
        rng.fill_bytes(&mut trellis);
        let suh = scales(rng, k, 1.0);
        let svh = scales(rng, n, 1.0);
        RandomLinear {
            k,
            n,
            codebook,
            bits,
            trellis,
            suh,
            svh,
            bias: None,
        }
    }

    /// Output scales smaller by √k, so that outputs are about as large as inputs.
    pub fn tame(mut self, rng: &mut StdRng) -> Self {
        self.svh = scales(rng, self.n, 1.0 / (self.k as f32).sqrt());
        self
    }

    /// With a bias that is as large as the outputs, stored as `dtype`.
    pub fn with_bias(mut self, rng: &mut StdRng, dtype: DType) -> Self {
        let largest = (self.k as f32).sqrt();
        let value = |_| {
            let value = rng.random_range(-largest..largest);
            match dtype {
                DType::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                DType::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                DType::F32 => value.to_le_bytes().to_vec(),
            }
        };
        self.bias = Some((dtype, (0..self.n).flat_map(value).collect()));
        self
    }

    /// The linear with its bias, if it has one.
    pub fn linear(&self) -> Linear<'_> {
        self.parts(self.bias.as_ref())
    }

    /// The same without the bias.
    pub fn without_bias(&self) -> Linear<'_> {
        self.parts(None)
    }

    /// The bias in f64, zeros if there is none.
    pub fn bias(&self) -> Vec<f64> {
        match self.linear().bias() {
            Some(bias) => bias.iter().map(f64::from).collect(),
            None => vec![0.0; self.n],
        }
    }

    fn parts<'a>(&'a self, bias: Option<&'a (DType, Vec<u8>)>) -> Linear<'a> {
        Linear::from_parts(
            "random",
            self.k,
            self.n,
            self.bits,
            self.codebook,
            &self.trellis,
            Scales::from_f16_bytes(&self.suh).unwrap(),
            Scales::from_f16_bytes(&self.svh).unwrap(),
            bias.map(|(dtype, bytes)| Bias::new(bytes, *dtype).unwrap()),
        )
        .unwrap()
    }
}

fn scales(rng: &mut StdRng, count: usize, factor: f32) -> Vec<u8> {
    let value = |_| {
        let sign = if rng.random() { factor } else { -factor };
        f16::from_f32(sign * rng.random_range(0.5..2.0f32)).to_le_bytes()
    };
    (0..count).flat_map(value).collect()
}

/// How the channels of a layer are dealt out to the ranks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shards {
    Even,
    /// Later ranks may have more than earlier ones.
    Uneven,
    /// Rank 0 and every third rank after it have nothing.
    WithEmpty,
}

impl Shards {
    pub const ALL: [Shards; 3] = [Shards::Even, Shards::Uneven, Shards::WithEmpty];

    pub fn split(self, channels: usize, world: usize) -> Split {
        let weights = |weight: fn(usize) -> f64| -> Vec<f64> {
            if world == 1 {
                vec![1.0]
            } else {
                (0..world).map(weight).collect()
            }
        };
        match self {
            Shards::Even => Split::even(channels, world),
            Shards::Uneven => Split::weighted(channels, &weights(|r| 1.0 + (r * 3 % 4) as f64)),
            Shards::WithEmpty => Split::weighted(channels, &weights(|r| (r % 3) as f64)),
        }
        .unwrap()
    }
}

/// Rank `rank`'s channels of every row of an input [M, split.channels()].
pub fn shard_columns(x: &Values, split: &Split, rank: usize) -> Values {
    x.columns(split.channels(), split.range(rank))
}

/// The shards [M, split.range(r).len()] of all ranks as one output [M, split.channels()], in f64.
pub fn combine(shards: &[&Values], split: &Split, rows: usize) -> Vec<f64> {
    let channels = split.channels();
    let mut whole = vec![f64::NAN; rows * channels];
    for (shard, range) in shards.iter().zip(split.iter()) {
        let values = shard.to_f64();
        for (i, value) in values.into_iter().enumerate() {
            let (row, column) = (i / range.len(), i % range.len());
            whole[row * channels + range.start + column] = value;
        }
    }
    whole
}

/// Calls `check` with the name, the linear and the tensors of every golden file.
///
/// The files are read with the safetensors crate alone, so that a fault of the crate's own loader
/// cannot hide one of what is tested.
pub fn golden(check: impl Fn(&str, &Linear, &SafeTensors)) {
    for (codebook, bits) in formats() {
        let name = format!("{codebook}_{bits}bpw.safetensors");
        let path = super::data().join("golden").join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let data = |name: &str| file.tensor(name).unwrap().data();
        let scales = |name: &str| Scales::from_f16_bytes(data(name)).unwrap();
        let (suh, svh) = (scales("layer.suh"), scales("layer.svh"));
        let linear = Linear::from_parts(
            "layer",
            suh.len(),
            svh.len(),
            bits,
            codebook,
            data("layer.trellis"),
            suh,
            svh,
            None,
        )
        .unwrap();
        check(&format!("{codebook} {bits}"), &linear, &file);
    }
}
