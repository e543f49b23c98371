//! One call of what is measured, against the reference: fast and wrong is no result.

use super::call::Call;
use super::kit::Kit;
use super::load::Bench;
use super::variant::Variant;
use crate::tensor::Element;
use anyhow::Result;
use half::f16;
use std::ops::Range;
use trellink::format::GROUP;
use trellink::reference::{self, ReferenceLinear};
use trellink::weights::Linear;

/// The relative error of the first rank's output in its first 128 columns, as `R` holds it. They
/// depend on their own weights alone, and the whole layer would take the reference minutes. Nothing
/// where the first rank is another process's.
pub fn relative_error<R: Element>(
    bench: &mut Bench,
    kits: &[Kit],
    variant: Variant,
    linear: &Linear<'_>,
    m: usize,
) -> Result<Option<f64>> {
    let x = crate::random::activations(&mut crate::random::generator(3), m * linear.k());
    let found = output::<R>(bench, kits, variant, &x, m)?;
    if bench.first > 0 {
        return Ok(None);
    }
    let summed = bench.summed(variant);
    let reference = ReferenceLinear::new(&linear.rows(summed.clone())?.columns(0..GROUP)?);
    let x = columns(&x, linear.k(), summed);
    let x: Vec<f64> = x.into_iter().map(f64::from).collect();
    let expected = reference.forward(&x, m);
    let found = columns(&found, linear.n(), 0..GROUP).into_iter();
    Ok(Some(reference::relative_error(
        found.map(|value| f64::from(value.widen())),
        &expected,
    )))
}

/// The first rank's output [m, N] of the first layer for `x` [m, K of all ranks].
fn output<R: Element>(
    bench: &mut Bench,
    kits: &[Kit],
    variant: Variant,
    x: &[f16],
    m: usize,
) -> Result<Vec<R>> {
    let (k, n, ranges, layers) = (x.len() / m, bench.n, &bench.ranges, &bench.layers);
    let first = bench.first;
    let mut calls = bench.crew.each(|at, worker| {
        let x = columns(x, k, ranges[first + at].clone());
        // An epilogue that adds, adds to nothing.
        let zeros = vec![R::round(0.0); m * n];
        Call::new(variant, &kits[at], &worker.lane, n, x, zeros)
    })?;
    bench.crew.each_with(&mut calls, |at, worker, call| {
        call.enqueue(worker, &layers[at][0])?;
        worker.finish()
    })?;
    let values = bench
        .crew
        .each_with(&mut calls, |at, worker, call| match at {
            0 => call.values(worker),
            _ => Ok(Vec::new()),
        })?;
    Ok(values.into_iter().next().unwrap_or_default())
}

/// Some columns of a row-major matrix of rows of `width`.
fn columns<T: Copy>(values: &[T], width: usize, range: Range<usize>) -> Vec<T> {
    let rows = values.chunks_exact(width);
    rows.flat_map(|row| &row[range.clone()]).copied().collect()
}
