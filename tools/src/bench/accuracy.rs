//! One call of what is measured, against the reference: fast and wrong is no result.

use super::load::Bench;
use crate::tensor::Tensor;
use anyhow::Result;
use half::f16;
use std::ops::Range;
use trellink::format::GROUP;
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::Linear;
use trellink::Epilogue;

/// The relative error of the first rank's output in its first 128 columns. They depend on their own
/// weights alone, and the whole layer would take the reference minutes.
pub fn relative_error(bench: &mut Bench, linear: &Linear<'_>, m: usize) -> Result<f64> {
    let x = crate::random::activations(&mut crate::random::generator(3), m * linear.k());
    let found = output(bench, &x, m)?;
    let reference = ReferenceLinear::new(&linear.columns(0..GROUP)?);
    let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
    let expected = reference.forward(&x, m);
    let columns = columns(&found, linear.n(), 0..GROUP);
    Ok(reference::relative_error(
        columns.into_iter().map(f64::from),
        &expected,
    ))
}

/// The first rank's output [m, N] of the first layer for `x` [m, K].
fn output(bench: &mut Bench, x: &[f16], m: usize) -> Result<Vec<f32>> {
    let (k, n) = (x.len() / m, bench.n);
    let ranges: Vec<_> = (0..bench.crew.len()).map(|at| bench.range_of(at)).collect();
    let mut tensors = bench.crew.each(|at, worker| {
        let x = columns(x, k, ranges[at].clone());
        let y = vec![f32::NAN; m * n];
        Ok((Tensor::new(&worker.lane, x)?, Tensor::new(&worker.lane, y)?))
    })?;
    let layers = &bench.layers;
    bench.crew.each_with(&mut tensors, |at, worker, (x, y)| {
        let (rank, lane) = (&mut worker.rank, &worker.lane);
        let output = y.output(lane, Epilogue::Store);
        layers[at][0].forward(rank, lane.stream(), x.input(lane), output)?;
        worker.finish()
    })?;
    let values = bench
        .crew
        .each_with(&mut tensors, |at, worker, (_, y)| match at {
            0 => y.values(&worker.lane),
            _ => Ok(Vec::new()),
        })?;
    Ok(values.into_iter().next().unwrap_or_default())
}

/// Some columns of a row-major matrix of rows of `width`.
fn columns<T: Copy>(values: &[T], width: usize, range: Range<usize>) -> Vec<T> {
    let rows = values.chunks_exact(width);
    rows.flat_map(|row| &row[range.clone()]).copied().collect()
}
