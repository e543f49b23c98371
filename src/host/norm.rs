//! The RMSNorm of a finished row.
//!
//! What must stay true: the order of additions is that of `csrc/linear/norm.cuh`, four values of a lane,
//! the lanes of 128 columns, the 128s of a lane, the lanes; so a row's result depends on its columns alone.

use crate::call::{InputData, Output, OutputData, RmsNorm};
use crate::format::GROUP;
use crate::Result;
use half::{bf16, f16};

/// Lanes of the kernels' warps.
const LANES: usize = 32;
/// Neighbouring columns that a lane holds.
const LANE_COLUMNS: usize = GROUP / LANES;

/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if its weight or output is not host memory.
pub(super) fn check_on_host(norm: &RmsNorm<'_>) -> Result<()> {
    match (&norm.weight, &norm.out) {
        #[cfg(feature = "cuda")]
        (InputData::Device(_), _) => Err(device_memory("weight")),
        #[cfg(feature = "cuda")]
        (_, OutputData::Device(_)) => Err(device_memory("out")),
        _ => Ok(()),
    }
}

#[cfg(feature = "cuda")]
fn device_memory(argument: &'static str) -> crate::Error {
    crate::Error::argument(
        argument,
        "device memory",
        "host memory, the group's ranks being on the host",
    )
}

/// Normalises a row of an output that has a norm, `columns` columns that have all been stored; else does nothing.
pub(super) fn normalise(output: &mut Output<'_>, row: usize, columns: usize) {
    let Some(norm) = &mut output.norm else {
        return;
    };
    let range = row * columns..(row + 1) * columns;
    let value = |column: usize| match &output.data {
        OutputData::F16(y) => y[range.start + column].to_f32(),
        OutputData::Bf16(y) => y[range.start + column].to_f32(),
        OutputData::F32(y) => y[range.start + column],
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("checked before the exchange"),
    };
    let weight = |column: usize| match &norm.weight {
        InputData::F16(w) => w[column].to_f32(),
        InputData::Bf16(w) => w[column].to_f32(),
        InputData::F32(w) => w[column],
        #[cfg(feature = "cuda")]
        InputData::Device(_) => unreachable!("checked before the exchange"),
    };
    let mean = sum_of_squares(columns, value).mul_add(1.0 / columns as f32, norm.epsilon);
    let scale = (1.0 / f64::from(mean).sqrt()) as f32;
    let normalised = (0..columns).map(|column| value(column) * weight(column) * scale);
    match &mut norm.out {
        OutputData::F16(out) => round(normalised, &mut out[range.clone()], f16::from_f32),
        OutputData::Bf16(out) => round(normalised, &mut out[range.clone()], bf16::from_f32),
        OutputData::F32(_) => unreachable!("`RmsNorm::check` came before"),
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("checked before the exchange"),
    }
}

fn round<T>(values: impl Iterator<Item = f32>, out: &mut [T], nearest: impl Fn(f32) -> T) {
    for (value, out) in values.zip(out) {
        *out = nearest(value);
    }
}

fn sum_of_squares(columns: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for group in 0..columns / GROUP {
        let squares = std::array::from_fn(|lane| {
            let first = group * GROUP + lane * LANE_COLUMNS;
            let rest = first + 1..first + LANE_COLUMNS;
            rest.map(&value)
                .fold(value(first) * value(first), |sum, v| v.mul_add(v, sum))
        });
        lanes[group % LANES] += warp_sum(squares);
    }
    warp_sum(lanes)
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
            assert_eq!(sum_of_squares(columns, value), want, "{columns}");
        }
    }

    /// Ones that are added to 2^24 one by one get lost; those of other lanes come as their sum.
    #[test]
    fn the_128s_of_a_lane_are_added_before_the_lanes() {
        let sum = |ones: [usize; 2]| {
            sum_of_squares(34 * GROUP, |column| match column {
                0 => 4096.0,
                _ if ones.contains(&(column / GROUP)) && column % GROUP == 0 => 1.0,
                _ => 0.0,
            })
        };
        let large = (1 << 24) as f32;
        assert_eq!(sum([16, 17]), large + 2.0);
        assert_eq!(sum([32, 33]), large, "32 is of lane 0, 33 of lane 1");
    }
}
