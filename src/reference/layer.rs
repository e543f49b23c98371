//! One EXL3 linear in f64: y = ((x ⊙ suh)·H · Wq · H) ⊙ svh + bias.
//!
//! What must stay true: nothing is rounded below f64 between the input and the result, and each
//! output sums over k in ascending order whatever the number of rows, so a row's result does not
//! depend on the others.

use super::{decode, hadamard_128};
use crate::weights::Linear;

/// Rows computed together: enough to use a weight several times once it is in the cache, few
/// enough that their sums stay in it.
const ROW_BLOCK: usize = 8;

/// A linear, or a shard of one, decoded once for many calls.
#[derive(Clone, Debug)]
pub struct ReferenceLinear {
    k: usize,
    n: usize,
    /// Row-major [K, N]; f32 holds every fp16 value exactly.
    weights: Vec<f32>,
    suh: Vec<f64>,
    svh: Vec<f64>,
    bias: Option<Vec<f64>>,
}

impl ReferenceLinear {
    /// Decodes `linear`.
    pub fn new(linear: &Linear) -> Self {
        let (suh, svh) = (linear.suh(), linear.svh());
        let weights = decode(linear).into_iter().map(f32::from).collect();
        ReferenceLinear {
            k: linear.k(),
            n: linear.n(),
            weights,
            suh: (0..linear.k()).map(|i| suh.get(i).to_f64()).collect(),
            svh: (0..linear.n()).map(|i| svh.get(i).to_f64()).collect(),
            bias: linear
                .bias()
                .map(|bias| (0..linear.n()).map(|i| bias.get(i).into()).collect()),
        }
    }

    /// In-features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Out-features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The layer's output [rows, N] for `x` [rows, K], both row-major.
    ///
    /// # Panics
    /// If `x` is not rows × K long.
    pub fn forward(&self, x: &[f64], rows: usize) -> Vec<f64> {
        self.finish(self.partial(x, rows))
    }

    /// The raw accumulators (x ⊙ suh)·H·Wq [rows, N] for `x` [rows, K]: what the shards of a
    /// row-parallel layer add up before [`finish`](Self::finish). Zeros for a shard with K = 0.
    ///
    /// # Panics
    /// If `x` is not rows × K long.
    pub fn partial(&self, x: &[f64], rows: usize) -> Vec<f64> {
        assert_eq!(x.len(), rows * self.k, "values of x [{rows}, {}]", self.k);
        let mut sums = vec![0.0; rows * self.n];
        if self.k == 0 || self.n == 0 {
            return sums; // Nothing to add, and no row length to divide by.
        }
        let x = self.transform_input(x);
        let x_blocks = x.chunks(ROW_BLOCK * self.k);
        for (x, sums) in x_blocks.zip(sums.chunks_mut(ROW_BLOCK * self.n)) {
            self.multiply(x, sums);
        }
        sums
    }

    /// Accumulators [rows, N] to outputs: the transform of the output side, svh and the bias.
    ///
    /// # Panics
    /// If `sums` is not a multiple of N long.
    pub fn finish(&self, mut sums: Vec<f64>) -> Vec<f64> {
        if self.n == 0 {
            return sums;
        }
        assert!(
            sums.len().is_multiple_of(self.n),
            "accumulators are no whole rows"
        );
        hadamard_128(&mut sums);
        for row in sums.chunks_exact_mut(self.n) {
            for (n, value) in row.iter_mut().enumerate() {
                *value *= self.svh[n];
                if let Some(bias) = &self.bias {
                    *value += bias[n];
                }
            }
        }
        sums
    }

    fn transform_input(&self, x: &[f64]) -> Vec<f64> {
        let scales = self.suh.iter().cycle();
        let mut x: Vec<f64> = x.iter().zip(scales).map(|(x, scale)| x * scale).collect();
        hadamard_128(&mut x);
        x
    }

    /// sums [rows, N] += x [rows, K] · weights. The loop over k is outermost, so that weights are
    /// read in order and once for all rows.
    fn multiply(&self, x: &[f64], sums: &mut [f64]) {
        for (k, weights) in self.weights.chunks_exact(self.n).enumerate() {
            for (x, sums) in x.chunks_exact(self.k).zip(sums.chunks_exact_mut(self.n)) {
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum += x[k] * f64::from(weight);
                }
            }
        }
    }
}
