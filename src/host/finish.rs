//! The output side of a layer: transform, svh, bias, gate, epilogue, one rounding.
//!
//! What must stay true: everything before the store is f32, and a value is rounded once, by the store.

use super::input::hadamard_128;
use super::layer::HostLinear;
use crate::call::{Epilogue, Output, OutputData};
use crate::format::GROUP;
use half::{bf16, f16};

/// Makes of the raw sums of whole groups of a row's columns, from `first_column` on, what the layer computes, for sums
/// that are to be multiplied by `scale`.
pub(super) fn transform(layer: &HostLinear, first_column: usize, scale: f32, sums: &mut [f32]) {
    let columns = first_column..first_column + sums.len();
    for group in sums.chunks_exact_mut(GROUP) {
        hadamard_128(group.try_into().expect("groups of 128"));
    }
    for (value, svh) in sums.iter_mut().zip(&layer.svh[columns.clone()]) {
        *value = *value * scale * svh;
    }
    if let Some(bias) = &layer.bias {
        for (value, bias) in sums.iter_mut().zip(&bias[columns]) {
            *value += bias;
        }
    }
}

/// silu(x) · y.
pub(super) fn gated(x: f32, y: f32) -> f32 {
    x / (1.0 + (-x).exp()) * y
}

/// Applies the epilogue to finished values, rounds and stores them from element `start` on.
pub(super) fn write(output: &mut Output<'_>, start: usize, values: &[f32]) {
    let epilogue = output.epilogue;
    let range = start..start + values.len();
    match &mut output.data {
        OutputData::F16(out) => round(epilogue, values, &mut out[range], f16::from_f32),
        OutputData::Bf16(out) => round(epilogue, values, &mut out[range], bf16::from_f32),
        OutputData::F32(out) => round(epilogue, values, &mut out[range], |value| value),
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

fn round<T: Copy + Into<f32>>(
    epilogue: Epilogue,
    values: &[f32],
    out: &mut [T],
    nearest: impl Fn(f32) -> T,
) {
    for (&value, out) in values.iter().zip(out) {
        *out = nearest(match epilogue {
            Epilogue::Store => value,
            Epilogue::Add => value + (*out).into(),
        });
    }
}
