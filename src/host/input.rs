//! The input side of a layer: (x ⊙ suh)·H in f32, in the order in which the kernel reads it.
//!
//! What must stay true: a group of 128 channels is transformed by itself, with additions in an order
//! that is written down here, so that a row's values do not depend on the batch.

use crate::call::{Input, InputData};
use crate::format::{GROUP, TILE};

/// What makes the transform orthonormal: 1/√128.
const HADAMARD_SCALE: f32 = 0.088_388_35;

/// The 128-point Walsh-Hadamard transform, Sylvester order, scaled.
pub(super) fn hadamard_128(values: &mut [f32; GROUP]) {
    let mut stride = 1;
    while stride < GROUP {
        for pair in values.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        stride *= 2;
    }
    for value in values {
        *value *= HADAMARD_SCALE;
    }
}

/// Transformed inputs as [group, row, 128], each group in the order of the kernel's steps.
pub(super) fn prepare(input: &Input<'_>, suh: &[f32], rows: usize) -> Vec<f32> {
    match &input.data {
        InputData::F16(x) => prepare_from(x, suh, rows),
        InputData::Bf16(x) => prepare_from(x, suh, rows),
        InputData::F32(_) => unreachable!("layers refuse it"),
        #[cfg(feature = "cuda")]
        InputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

fn prepare_from<T: Copy + Into<f32>>(x: &[T], suh: &[f32], rows: usize) -> Vec<f32> {
    let k = suh.len();
    let mut prepared = vec![0.0; rows * k];
    for (i, out) in prepared.chunks_exact_mut(GROUP).enumerate() {
        let (group, row) = (i / rows, i % rows);
        let x = &x[row * k + group * GROUP..][..GROUP];
        let suh = &suh[group * GROUP..][..GROUP];
        let mut values: [f32; GROUP] = std::array::from_fn(|c| x[c].into() * suh[c]);
        hadamard_128(&mut values);
        for (value, channel) in out.iter_mut().zip(step_channels()) {
            *value = values[channel];
        }
    }
    prepared
}

/// The channels of a group in the order in which `DecodedBlock` of `csrc/host` meets them: by tile, by
/// the lane's pair of weights, by the lane's place in its quad.
fn step_channels() -> impl Iterator<Item = usize> {
    (0..GROUP).map(|i| {
        let (tile, weight, quad) = (i / TILE, i / 4 % 4, i % 4);
        tile * TILE + 2 * quad + weight % 2 + weight / 2 * 8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_is_the_references() {
        let mut values: [f32; GROUP] = std::array::from_fn(|i| (i as f32 * 0.7).sin());
        let mut want = values.map(f64::from);
        crate::reference::hadamard_128(&mut want);
        hadamard_128(&mut values);
        for (value, want) in values.into_iter().zip(want) {
            assert!((f64::from(value) - want).abs() < 1e-6);
        }
    }

    #[test]
    fn steps_visit_every_channel_once() {
        let mut channels: Vec<usize> = step_channels().collect();
        assert_eq!(channels[..6], [0, 2, 4, 6, 1, 3]);
        channels.sort_unstable();
        assert!(channels.into_iter().eq(0..GROUP));
    }
}
