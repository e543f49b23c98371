//! A linear's calls on all ranks: row-parallel, with and without a residual, and column-parallel.

use crate::ranks::{Crew, Worker};
use crate::tensor::Tensor;
use anyhow::Result;
use half::f16;
use std::ops::Range;
use trellink::weights::Linear;
use trellink::{ColumnParallel, Epilogue, RowParallel, Split};

/// What the row-parallel calls left on each rank.
pub struct RowOutputs {
    /// Stored [M, N], by rank.
    pub stored: Vec<Vec<f32>>,
    /// Added to the residual [M, N], by rank.
    pub added: Vec<Vec<f16>>,
}

/// One rank's row-parallel calls, ready to run.
struct RowCalls {
    layer: RowParallel,
    x: Tensor<f16>,
    stored: Tensor<f32>,
    added: Tensor<f16>,
}

/// Runs `linear` with K split evenly over the ranks, once storing and once adding to `residual`.
pub fn row_parallel(
    crew: &mut Crew,
    linear: &Linear<'_>,
    x: &[f16],
    residual: &[f16],
) -> Result<RowOutputs> {
    let split = Split::even(linear.k(), crew.len())?;
    let mut calls = crew.each(|at, worker| {
        let lane = &worker.lane;
        Ok(RowCalls {
            layer: RowParallel::load(&worker.rank, linear, &split)?,
            x: Tensor::new(lane, columns(x, linear.k(), split.range(at)))?,
            stored: Tensor::new(lane, vec![f32::NAN; residual.len()])?,
            added: Tensor::new(lane, residual.to_vec())?,
        })
    })?;
    crew.each_with(&mut calls, |_, worker, calls| calls.run(worker))?;
    let values = crew.each_with(&mut calls, |_, worker, calls| calls.values(worker))?;
    let (stored, added) = values.into_iter().unzip();
    Ok(RowOutputs { stored, added })
}

impl RowCalls {
    fn run(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        let stored = self.stored.output(lane, Epilogue::Store);
        self.layer
            .forward(rank, lane.stream(), self.x.input(lane), stored)?;
        let added = self.added.output(lane, Epilogue::Add);
        self.layer
            .forward(rank, lane.stream(), self.x.input(lane), added)?;
        worker.finish()
    }

    fn values(&self, worker: &Worker) -> Result<(Vec<f32>, Vec<f16>)> {
        let lane = &worker.lane;
        Ok((self.stored.values(lane)?, self.added.values(lane)?))
    }
}

/// One rank's column-parallel call, ready to run.
struct ColumnCall {
    layer: ColumnParallel,
    x: Tensor<f16>,
    y: Tensor<f32>,
}

/// Runs `linear` with N split evenly over the ranks; the whole output [M, N].
pub fn column_parallel(crew: &mut Crew, linear: &Linear<'_>, x: &[f16]) -> Result<Vec<f32>> {
    let rows = x.len() / linear.k();
    let split = Split::even(linear.n(), crew.len())?;
    let mut calls = crew.each(|at, worker| {
        let y = vec![f32::NAN; rows * split.range(at).len()];
        Ok(ColumnCall {
            layer: ColumnParallel::load(&worker.rank, &[(linear, &split)])?,
            x: Tensor::new(&worker.lane, x.to_vec())?,
            y: Tensor::new(&worker.lane, y)?,
        })
    })?;
    crew.each_with(&mut calls, |_, worker, call| call.run(worker))?;
    let parts = crew.each_with(&mut calls, |_, worker, call| call.y.values(&worker.lane))?;
    Ok(join_columns(&parts, &split))
}

impl ColumnCall {
    fn run(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        let output = self.y.output(lane, Epilogue::Store);
        self.layer
            .forward(rank, lane.stream(), self.x.input(lane), &mut [output])?;
        worker.finish()
    }
}

/// The ranks' columns beside one another: [M, N] of parts [M, N of the rank].
fn join_columns(parts: &[Vec<f32>], split: &Split) -> Vec<f32> {
    let n = split.channels();
    let values: usize = parts.iter().map(Vec::len).sum();
    let mut whole = vec![f32::NAN; values];
    for (part, range) in parts.iter().zip(split.iter()) {
        // A rank without columns has no rows to be cut into either.
        let rows = part.chunks_exact(range.len().max(1));
        for (part, whole) in rows.zip(whole.chunks_exact_mut(n)) {
            whole[range.clone()].copy_from_slice(part);
        }
    }
    whole
}

/// Some columns of `x` [M, k].
fn columns(x: &[f16], k: usize, range: Range<usize>) -> Vec<f16> {
    x.chunks_exact(k)
        .flat_map(|row| &row[range.clone()])
        .copied()
        .collect()
}
