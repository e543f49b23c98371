//! The RMSNorm that may follow an output's epilogue.

use super::squares::check_epsilon;
use super::{Input, InputData, Output, OutputData};
use crate::format::DType;
use crate::{Error, Result};

/// The RMSNorm of a finished row h, for [`Output::rms_norm`]:
/// `out = round((h ⊙ weight) / √(mean(h²) + epsilon))`.
///
/// h is what the output holds after the call, rounded to its dtype: a separate RMSNorm of the
/// residual computes the same, to within f32's rounding. All else is f32, rounded once. The squares of every 128 columns are added up
/// by themselves, then these sums, always in the same order; so all ranks get the same bits, in every run, and
/// a row's do not depend on the others.
#[derive(Debug)]
pub struct RmsNorm<'a> {
    pub(crate) weight: InputData<'a>,
    pub(crate) epsilon: f32,
    pub(crate) out: OutputData<'a>,
}

impl<'a> RmsNorm<'a> {
    /// `weight` is `[N]`, of f16, bf16 or f32; where a model multiplies by 1 + w, pass that. `out` is
    /// `[M, N]`, row-major and contiguous, f16 or bf16, and is overwritten, whatever its own epilogue. `epsilon`
    /// is finite and not negative.
    ///
    /// On a GPU `weight` and `out` begin at a multiple of four elements, as all memory of a call does,
    /// and `out` overlaps nothing else that the call reads or writes.
    pub fn new(weight: impl Into<Input<'a>>, epsilon: f32, out: impl Into<Output<'a>>) -> Self {
        RmsNorm {
            weight: weight.into().data,
            epsilon,
            out: out.into().data,
        }
    }

    /// Fails unless it fits an output of `rows` rows of `columns`.
    pub(crate) fn check(&self, rows: usize, columns: usize) -> Result<()> {
        let (weight, out) = (self.weight.len(), self.out.len());
        if weight != columns {
            let expected = format!("{columns}, one per column");
            return Err(Error::argument(
                "weight",
                format!("{weight} elements"),
                expected,
            ));
        }
        if rows.checked_mul(columns) != Some(out) {
            let expected = format!("{rows} rows of {columns}, as the output has");
            return Err(Error::argument("out", format!("{out} elements"), expected));
        }
        if self.out.dtype() == DType::F32 {
            return Err(Error::argument("out", "f32", "f16 or bf16"));
        }
        check_epsilon(self.epsilon)
    }
}

/// Fails unless a slot of `slot_values` holds a row of `columns`: what `epilogue` takes together must be
/// exchanged together.
pub(crate) fn check_whole_rows(epilogue: &str, columns: usize, slot_values: usize) -> Result<()> {
    if columns <= slot_values {
        return Ok(());
    }
    Err(Error::argument(
        "output",
        format!("{epilogue} over {columns} columns in slots of {slot_values} values"),
        format!("a group with `slot_values` of at least {columns}"),
    ))
}
