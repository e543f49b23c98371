//! The RMSNorm of a layer's input, in two halves: whoever finishes a row leaves the sums of its squares, whoever
//! reads it divides its outputs.

use super::{Input, InputData, Output};
use crate::format::{DType, GROUP};
use crate::{Error, Result};

/// What an input is normalised by; see [`Input::rms_norm`].
#[derive(Debug)]
pub(crate) struct InputNorm<'a> {
    /// [M, K/128] f32.
    pub(crate) squares: InputData<'a>,
    pub(crate) epsilon: f32,
}

impl InputNorm<'_> {
    /// Fails unless it fits an input of `rows` rows of `columns`.
    pub(crate) fn check(&self, rows: usize, columns: usize) -> Result<()> {
        check_squares(self.squares.dtype(), self.squares.len(), rows, columns)?;
        check_epsilon(self.epsilon)
    }
}

/// Fails unless sums of squares fit `rows` rows of `columns`.
pub(super) fn check_squares(dtype: DType, len: usize, rows: usize, columns: usize) -> Result<()> {
    let groups = columns / GROUP;
    if dtype != DType::F32 {
        return Err(Error::argument("squares", dtype.to_string(), "f32"));
    }
    if rows.checked_mul(groups) != Some(len) {
        let expected = format!("{rows} rows of {groups}, one for each 128 of {columns} columns");
        return Err(Error::argument(
            "squares",
            format!("{len} elements"),
            expected,
        ));
    }
    Ok(())
}

pub(super) fn check_epsilon(epsilon: f32) -> Result<()> {
    if epsilon >= 0.0 && epsilon.is_finite() {
        return Ok(());
    }
    let expected = "a finite number from 0 on";
    Err(Error::argument("epsilon", epsilon.to_string(), expected))
}

impl<'a> Input<'a> {
    /// Makes the layers' input x / √(mean(x²) + epsilon), row by row: the RMSNorm without its weight, which the
    /// layers may have taken in when they were [loaded](crate::ColumnParallel::load_normalised).
    ///
    /// `squares` is `[M, K/128]` f32, what [`Output::sums_of_squares`] of the call that finished x has left. The
    /// inputs stay as they are; each row's outputs are multiplied by one number, in f32, before the bias. The sums are
    /// added up as an [`RmsNorm`](crate::RmsNorm) does, so their order does not depend on the batch. `epsilon` is finite and not negative.
    ///
    /// For [`ColumnParallel`](crate::ColumnParallel) alone, whose ranks all hold whole rows.
    ///
    /// ```
    /// # use half::bf16;
    /// # use trellink::{Input, Output};
    /// # let (mut residual, mut squares) = (vec![bf16::ONE; 3 * 256], vec![0f32; 3 * 2]);
    /// // The row-parallel call: residual += y, and what the next call needs to normalise it.
    /// let output = Output::add_to(&mut residual[..]).sums_of_squares(&mut squares[..]);
    /// // The column-parallel call.
    /// # drop(output);
    /// let input = Input::from(&residual[..]).rms_norm(&squares[..], 1e-5);
    /// ```
    #[must_use]
    pub fn rms_norm(mut self, squares: impl Into<Input<'a>>, epsilon: f32) -> Self {
        let squares = squares.into().data;
        self.norm = Some(InputNorm { squares, epsilon });
        self
    }

    /// Fails if it is to be normalised, for a call that cannot.
    pub(crate) fn refuse_norm(&self) -> Result<()> {
        if self.norm.is_none() {
            return Ok(());
        }
        Err(Error::argument(
            "input",
            "an input with an RMSNorm",
            "one without; only a column-parallel layer's call normalises its input",
        ))
    }
}

impl<'a> Output<'a> {
    /// Also writes the sums of the squares of the finished rows, for the next call's [`Input::rms_norm`]: much
    /// cheaper than a whole [`rms_norm`](Self::rms_norm), since nobody waits for the rest of a row.
    ///
    /// `squares` is `[M, N/128]`, row-major and contiguous f32, and is overwritten, whatever its own epilogue: for each
    /// 128 columns of a row the sum of the squares of what the output holds after the call, rounded to its dtype, in f32. All ranks
    /// get the same bits, in every run, and a row's do not depend on the others.
    ///
    /// For [`RowParallel::forward`](crate::RowParallel::forward) alone.
    #[must_use]
    pub fn sums_of_squares(mut self, squares: impl Into<Output<'a>>) -> Self {
        self.squares = Some(squares.into().data);
        self
    }

    /// Fails unless its sums of squares, if there are any, fit `rows` rows of `columns`.
    pub(crate) fn check_squares(&self, rows: usize, columns: usize) -> Result<()> {
        let squares = self.squares.as_ref();
        squares.map_or(Ok(()), |squares| {
            check_squares(squares.dtype(), squares.len(), rows, columns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_f32_and_one_for_each_128_columns_of_a_row() {
        assert!(check_squares(DType::F32, 6, 3, 256).is_ok());
        let found = |dtype, len| check_squares(dtype, len, 3, 256).unwrap_err().to_string();
        assert!(found(DType::F16, 6).contains("expected f32"));
        assert!(found(DType::F32, 5).contains("3 rows of 2"));
    }
}
