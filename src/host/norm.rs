//! The RMSNorm of a finished row, and its two halves: the sums of squares, and what they make of a row of the input.
//!
//! What must stay true: the order of additions is that of `csrc/linear/norm.cuh`, four values of a lane,
//! the lanes of 128 columns, the 128s of a lane, the lanes; so a row's result depends on its columns alone.

use crate::call::{Input, InputData, Output, OutputData};
use crate::format::GROUP;
use half::{bf16, f16};
use std::ops::Range;

/// Lanes of the kernels' warps.
const LANES: usize = 32;
/// Neighbouring columns that a lane holds.
const LANE_COLUMNS: usize = GROUP / LANES;

/// Normalises a row of an output that has a norm, `columns` columns that have all been stored; else does nothing.
pub(super) fn normalise(output: &mut Output<'_>, row: usize, columns: usize) {
    let Some(norm) = &mut output.norm else {
        return;
    };
    let range = row * columns..(row + 1) * columns;
    let data = &output.data;
    let value = |column: usize| stored(data, range.start + column);
    let weight = |column: usize| match &norm.weight {
        InputData::F16(w) => w[column].to_f32(),
        InputData::Bf16(w) => w[column].to_f32(),
        InputData::F32(w) => w[column],
        #[cfg(feature = "cuda")]
        InputData::Device(_) => unreachable!("`require_host` came before"),
    };
    let squares = (0..columns / GROUP).map(|group| group_squares(|i| value(group * GROUP + i)));
    let scale = row_scale(squares, columns, norm.epsilon);
    let normalised = (0..columns).map(|column| value(column) * weight(column) * scale);
    match &mut norm.out {
        OutputData::F16(out) => round(normalised, &mut out[range.clone()], f16::from_f32),
        OutputData::Bf16(out) => round(normalised, &mut out[range.clone()], bf16::from_f32),
        OutputData::F32(_) => unreachable!("`RmsNorm::check` came before"),
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

fn round<T>(values: impl Iterator<Item = f32>, out: &mut [T], nearest: impl Fn(f32) -> T) {
    for (value, out) in values.zip(out) {
        *out = nearest(value);
    }
}

/// Leaves the sums of squares of `columns`, whole groups of a row of `n` that have been stored, if the output has any; else
/// does nothing.
pub(super) fn leave_squares(output: &mut Output<'_>, row: usize, columns: Range<usize>, n: usize) {
    let Some(OutputData::F32(squares)) = &mut output.squares else {
        return;
    };
    let data = &output.data;
    for first in columns.step_by(GROUP) {
        let start = row * n + first;
        squares[start / GROUP] = group_squares(|i| stored(data, start + i));
    }
}

/// What the outputs of row `row` of the input [M, `columns`] are multiplied by for its norm, which is in host memory; 1 without one.
pub(super) fn row_scales(input: &Input<'_>, rows: usize, columns: usize) -> Vec<f32> {
    let Some(norm) = &input.norm else {
        return vec![1.0; rows];
    };
    let InputData::F32(squares) = &norm.squares else {
        unreachable!("`InputNorm::check` and `require_host` came before");
    };
    let of_rows = squares.chunks_exact(columns / GROUP);
    of_rows
        .map(|row| row_scale(row.iter().copied(), columns, norm.epsilon))
        .collect()
}

fn stored(data: &OutputData<'_>, i: usize) -> f32 {
    match data {
        OutputData::F16(y) => y[i].to_f32(),
        OutputData::Bf16(y) => y[i].to_f32(),
        OutputData::F32(y) => y[i],
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

/// 1 / √(mean of squares + epsilon), given their sums over each 128 columns.
fn row_scale(squares: impl Iterator<Item = f32>, columns: usize, epsilon: f32) -> f32 {
    let mean = sum_of_groups(squares).mul_add(1.0 / columns as f32, epsilon);
    (1.0 / f64::from(mean).sqrt()) as f32
}

fn sum_of_groups(squares: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0.0; LANES];
    for (group, squares) in squares.enumerate() {
        lanes[group % LANES] += squares;
    }
    warp_sum(lanes)
}

/// The sum of the squares of 128 values.
fn group_squares(value: impl Fn(usize) -> f32) -> f32 {
    warp_sum(std::array::from_fn(|lane| {
        let first = lane * LANE_COLUMNS;
        let rest = first + 1..first + LANE_COLUMNS;
        rest.map(&value)
            .fold(value(first) * value(first), |sum, v| v.mul_add(v, sum))
    }))
}

/// The sum over the lanes of a warp, as a butterfly of shuffles adds it up.
fn warp_sum(mut lanes: [f32; LANES]) -> f32 {
    let mut mask = 1;
    while mask < LANES {
        lanes = std::array::from_fn(|lane| lanes[lane] + lanes[lane ^ mask]);
        mask *= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_counts_once() {
        for columns in [128, 256, 33 * 128, 70 * 128] {
            let value = |column: usize| if column.is_multiple_of(3) { 2.0 } else { -1.0 };
            let want: f32 = (0..columns).map(|c| value(c) * value(c)).sum();
            let squares = (0..columns / GROUP).map(|g| group_squares(|i| value(g * GROUP + i)));
            assert_eq!(sum_of_groups(squares), want, "{columns}");
        }
    }

    /// Ones that are added to 2^24 one by one get lost; those of other lanes come as their sum.
    #[test]
    fn the_128s_of_a_lane_are_added_before_the_lanes() {
        let sum = |ones: [usize; 2]| {
            let value = |column: usize| match column {
                0 => 4096.0,
                _ if ones.contains(&(column / GROUP)) && column.is_multiple_of(GROUP) => 1.0,
                _ => 0.0,
            };
            sum_of_groups((0..34).map(|g| group_squares(|i| value(g * GROUP + i))))
        };
        let large = (1 << 24) as f32;
        assert_eq!(sum([16, 17]), large + 2.0);
        assert_eq!(sum([32, 33]), large, "32 is of lane 0, 33 of lane 1");
    }
}
