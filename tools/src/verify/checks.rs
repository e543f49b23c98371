//! The comparisons: what the device computed against the reference and the file.

use super::calls::{join_columns, RankOutputs};
use super::golden::Golden;
use crate::device::Place;
use anyhow::Result;
use half::f16;
use serde::Serialize;
use trellink::reference::{self, relative_error, ReferenceLinear};
use trellink::weights::Linear;
use trellink::Device;

/// The largest relative error (2-norm) of an output: several times what the arithmetic of the
/// kernels makes, a fraction of what one wrong weight in a hundred would.
pub const TOLERANCE: f64 = 4e-4;

/// Everything found about one linear.
#[derive(Serialize)]
pub struct Verdict {
    /// The decoded weights.
    #[serde(flatten)]
    pub decode: Decode,
    /// The calls' outputs.
    #[serde(flatten)]
    pub outputs: Outputs,
}

/// Weights that differ in at least one bit.
#[derive(Serialize)]
pub struct Decode {
    /// The device's from the reference's.
    pub decode_mismatches: usize,
    /// The reference's from the file's `inner`, if it has one.
    pub inner_mismatches: Option<usize>,
}

/// Outputs against the reference in f64 and against the file.
#[derive(Serialize)]
pub struct Outputs {
    /// Relative error of the row-parallel output; without a value where that is not finite.
    pub row_error: f64,
    /// The same from the file's `y`.
    pub row_error_from_file: Option<f64>,
    /// Relative error of the column-parallel output.
    pub column_error: f64,
    /// The same from the file's `y`.
    pub column_error_from_file: Option<f64>,
    /// Whether all ranks hold the same bits.
    pub ranks_agree: bool,
    /// Values that differ from the stored ones plus the residual, rounded once.
    pub residual_mismatches: usize,
}

/// Decodes `linear` on every device of the place and compares bit for bit.
pub fn decode(linear: &Linear<'_>, place: &Place, golden: &Golden) -> Result<Decode> {
    let reference = reference::decode(linear);
    let mut decode_mismatches = 0;
    for device in &place.devices {
        decode_mismatches += mismatches(&decode_on(linear, *device)?, &reference);
    }
    let inner = golden.inner.as_ref();
    Ok(Decode {
        decode_mismatches,
        inner_mismatches: inner.map(|inner| mismatches(&reference, inner)),
    })
}

fn decode_on(linear: &Linear<'_>, device: Device) -> Result<Vec<f16>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(ordinal) => Ok(trellink::cuda::decode(linear, ordinal)?),
        _ => Ok(trellink::host::decode(linear)),
    }
}

fn mismatches(found: &[f16], expected: &[f16]) -> usize {
    let pairs = found.iter().zip(expected);
    let differ = pairs.filter(|(found, expected)| found.to_bits() != expected.to_bits());
    differ.count() + found.len().abs_diff(expected.len())
}

/// Compares the outputs of all calls.
pub fn outputs(
    linear: &Linear<'_>,
    x: &[f16],
    residual: &[f16],
    golden: &Golden,
    ranks: &[RankOutputs],
) -> Result<Outputs> {
    let column = &join_columns(ranks, linear.n())?;
    let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    let reference = ReferenceLinear::new(linear).forward(&x, x.len() / linear.k());
    let y = golden.y.as_ref();
    let stored = &ranks[0].stored;
    Ok(Outputs {
        row_error: error(stored, &reference),
        row_error_from_file: y.map(|y| error(stored, y)),
        column_error: error(column, &reference),
        column_error_from_file: y.map(|y| error(column, y)),
        ranks_agree: ranks_agree(ranks),
        residual_mismatches: mismatches(&ranks[0].added, &added(stored, residual)),
    })
}

fn error(found: &[f32], expected: &[f64]) -> f64 {
    relative_error(found.iter().map(|&value| value.into()), expected)
}

fn ranks_agree(ranks: &[RankOutputs]) -> bool {
    let bits = |rank: &RankOutputs| -> (Vec<u32>, Vec<u16>) {
        (
            rank.stored.iter().map(|v| v.to_bits()).collect(),
            rank.added.iter().map(|v| v.to_bits()).collect(),
        )
    };
    ranks
        .windows(2)
        .all(|pair| bits(&pair[0]) == bits(&pair[1]))
}

/// What the residual epilogue promises: the sum in f32, rounded once.
fn added(stored: &[f32], residual: &[f16]) -> Vec<f16> {
    let sums = stored
        .iter()
        .zip(residual)
        .map(|(y, residual)| y + residual.to_f32());
    sums.map(f16::from_f32).collect()
}

impl Verdict {
    /// What did not hold, in words; nothing if the linear passed.
    pub fn failures(&self) -> Vec<String> {
        let (decode, outputs) = (&self.decode, &self.outputs);
        let counts = [
            (
                "decoded weights differ from the reference",
                decode.decode_mismatches,
            ),
            (
                "reference weights differ from `inner`",
                decode.inner_mismatches.unwrap_or(0),
            ),
            (
                "values differ after the residual add",
                outputs.residual_mismatches,
            ),
        ];
        let errors = [
            ("row-parallel error", outputs.row_error),
            (
                "row-parallel error from `y`",
                outputs.row_error_from_file.unwrap_or(0.0),
            ),
            ("column-parallel error", outputs.column_error),
            (
                "column-parallel error from `y`",
                outputs.column_error_from_file.unwrap_or(0.0),
            ),
        ];
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(what, count)| format!("{count} {what}"));
        // relative_error is infinite rather than NaN, so nothing slips through the comparison.
        let errors = errors.iter().filter(|(_, error)| *error > TOLERANCE);
        let errors = errors.map(|(what, error)| format!("{what} {error:.1e} > {TOLERANCE:.0e}"));
        let ranks = (!outputs.ranks_agree).then(|| "ranks differ in their outputs".into());
        counts.chain(errors).chain(ranks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Verdict {
        Verdict {
            decode: Decode {
                decode_mismatches: 0,
                inner_mismatches: None,
            },
            outputs: Outputs {
                row_error: TOLERANCE,
                row_error_from_file: None,
                column_error: 0.0,
                column_error_from_file: Some(0.0),
                ranks_agree: true,
                residual_mismatches: 0,
            },
        }
    }

    #[test]
    fn every_comparison_alone_fails_a_linear() {
        assert!(good().failures().is_empty());
        let spoil: [fn(&mut Verdict); 8] = [
            |v| v.decode.decode_mismatches = 1,
            |v| v.decode.inner_mismatches = Some(1),
            |v| v.outputs.row_error = 4.1e-4,
            |v| v.outputs.row_error_from_file = Some(f64::INFINITY),
            |v| v.outputs.column_error = f64::INFINITY,
            |v| v.outputs.column_error_from_file = Some(1.0),
            |v| v.outputs.ranks_agree = false,
            |v| v.outputs.residual_mismatches = 1,
        ];
        for (at, spoil) in spoil.iter().enumerate() {
            let mut verdict = good();
            spoil(&mut verdict);
            assert_eq!(verdict.failures().len(), 1, "comparison {at}");
        }
    }

    #[test]
    fn one_rank_with_other_bits_is_seen() {
        let same = || -> Vec<RankOutputs> {
            let rank = |_| RankOutputs {
                stored: vec![1.0, -0.0],
                added: vec![f16::ONE],
                columns: Vec::new(),
            };
            (0..3).map(rank).collect()
        };
        assert!(ranks_agree(&same()));
        let mut other = same();
        other[2].stored[1] = 0.0;
        assert!(!ranks_agree(&other));
        let mut other = same();
        other[1].added[0] = f16::NEG_ONE;
        assert!(!ranks_agree(&other));
    }
}
