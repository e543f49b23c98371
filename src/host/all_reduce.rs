//! The sum of a tensor over all ranks: values through the exchange as they are, then the epilogue.

use super::finish::write;
use super::rank::HostRank;
use crate::call::{Input, InputData, Output, OutputData};
use crate::protocol::Operation;
use crate::Result;
use std::ops::Range;

impl HostRank {
    /// Adds up `input`, or without one what `output` holds, into `output`, of as many elements; every
    /// rank of the group calls it.
    ///
    /// # Errors
    /// As [`row_parallel`](Self::row_parallel).
    pub(crate) fn all_reduce(
        &mut self,
        operation: Operation,
        input: Option<&Input<'_>>,
        output: &mut Output<'_>,
    ) -> Result<()> {
        self.group.check()?;
        output.require_host()?;
        input.map_or(Ok(()), Input::require_host)?;
        let (len, step) = (output.len(), self.endpoint.layout().slot_values());
        let mut values = Vec::with_capacity(step.min(len));
        for start in (0..len).step_by(step) {
            let range = start..len.min(start + step);
            match input {
                Some(input) => widen_input(input, range.clone(), &mut values),
                None => widen_output(output, range.clone(), &mut values),
            }
            self.endpoint.begin(operation.digest());
            self.endpoint.push(0, &values);
            self.collect(operation, range.len())?;
            write(output, start, &self.message);
        }
        Ok(())
    }
}

/// Elements of the input as f32, in place of what `values` held.
fn widen_input(input: &Input<'_>, range: Range<usize>, values: &mut Vec<f32>) {
    match &input.data {
        InputData::F16(x) => widen(&x[range], values),
        InputData::Bf16(x) => widen(&x[range], values),
        InputData::F32(x) => widen(&x[range], values),
        #[cfg(feature = "cuda")]
        InputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

fn widen_output(output: &Output<'_>, range: Range<usize>, values: &mut Vec<f32>) {
    match &output.data {
        OutputData::F16(x) => widen(&x[range], values),
        OutputData::Bf16(x) => widen(&x[range], values),
        OutputData::F32(x) => widen(&x[range], values),
        #[cfg(feature = "cuda")]
        OutputData::Device(_) => unreachable!("`require_host` came before"),
    }
}

fn widen<T: Copy + Into<f32>>(elements: &[T], values: &mut Vec<f32>) {
    values.clear();
    values.extend(elements.iter().map(|&element| element.into()));
}
