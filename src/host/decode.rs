//! The decoded matrix by the host's kernels.

use super::kernels::Kernels;
use super::layer::HostLinear;
use crate::format::{GROUP, TILE};
use crate::weights::Linear;
use half::f16;

/// All weights of a linear or a shard, row-major [K, N], in the basis between the two transforms.
///
/// Computed by the lines that the GPU runs, compiled for this machine, and not by
/// [`reference::decode`](crate::reference::decode): the two must agree bit for bit.
pub fn decode(linear: &Linear<'_>) -> Vec<f16> {
    decode_with(Kernels::best(), linear)
}

pub(super) fn decode_with(kernels: &Kernels, linear: &Linear<'_>) -> Vec<f16> {
    let (k, n) = (linear.k(), linear.n());
    let mut weights = vec![f16::ZERO; k * n];
    let layer = match HostLinear::load(linear) {
        Ok(layer) => layer,
        Err(never) => unreachable!("a checked linear can be repacked: {never}"),
    };
    for (block, values) in layer.decode(kernels).chunks_exact(GROUP * TILE).enumerate() {
        let (strip, group) = (block / (k / GROUP), block % (k / GROUP));
        for (row, values) in values.chunks_exact(TILE).enumerate() {
            let start = (group * GROUP + row) * n + strip * TILE;
            let out = &mut weights[start..start + TILE];
            for (out, &value) in out.iter_mut().zip(values) {
                *out = truncate(value);
            }
        }
    }
    weights
}

/// The fp16 of the same value, if it is zero or normal in fp16. Anything else is cut off rather
/// than rounded, so that a kernel that has not rounded is found out.
fn truncate(value: f32) -> f16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    // The exponents' biases differ by 112. Zero has no exponent to correct.
    let magnitude = ((bits & 0x7fff_ffff) >> 13).saturating_sub(112 << 10) as u16;
    f16::from_bits(sign | magnitude)
}
