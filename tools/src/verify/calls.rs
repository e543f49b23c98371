//! A linear's calls on one rank: row-parallel, with and without a residual, and column-parallel.
//!
//! They take three steps, each of which ends on all ranks before the next begins: prepare, run, read.

use crate::ranks::{Crew, Worker};
use crate::tensor::Tensor;
use anyhow::Result;
use half::f16;
use std::ops::Range;
use trellink::weights::Linear;
use trellink::{ColumnParallel, Epilogue, RowParallel, Split};

/// What the calls left on one rank.
pub struct RankOutputs {
    /// Of the row-parallel call, stored [M, N].
    pub stored: Vec<f32>,
    /// The same, added to the residual [M, N].
    pub added: Vec<f16>,
    /// Of the column-parallel call, [M, N of the rank].
    pub columns: Vec<f32>,
}

/// Runs `linear` on ranks of this process, split evenly over the ranks of their group.
pub fn run(
    crew: &mut Crew,
    linear: &Linear<'_>,
    x: &[f16],
    residual: &[f16],
) -> Result<Vec<RankOutputs>> {
    let mut calls = crew.each(|_, worker| RankCalls::prepare(worker, linear, x, residual))?;
    crew.each_with(&mut calls, |_, worker, calls| calls.run(worker))?;
    crew.each_with(&mut calls, |_, worker, calls| calls.outputs(worker))
}

/// One rank's calls, ready to run.
pub struct RankCalls {
    row: RowParallel,
    shard: Tensor<f16>,
    stored: Tensor<f32>,
    added: Tensor<f16>,
    column: ColumnParallel,
    x: Tensor<f16>,
    columns: Tensor<f32>,
}

impl RankCalls {
    /// Loads the layers and makes their inputs and outputs.
    pub fn prepare(
        worker: &Worker,
        linear: &Linear<'_>,
        x: &[f16],
        residual: &[f16],
    ) -> Result<Self> {
        let Worker { rank, lane } = worker;
        let rows = x.len() / linear.k();
        let k_split = Split::even(linear.k(), rank.world())?;
        let n_split = Split::even(linear.n(), rank.world())?;
        let own_n = n_split.range(rank.rank()).len();
        let shard = columns(x, linear.k(), k_split.range(rank.rank()));
        Ok(RankCalls {
            row: RowParallel::load(rank, linear, &k_split)?,
            shard: Tensor::new(lane, shard)?,
            stored: Tensor::new(lane, vec![f32::NAN; residual.len()])?,
            added: Tensor::new(lane, residual.to_vec())?,
            column: ColumnParallel::load(rank, &[(linear, &n_split)])?,
            x: Tensor::new(lane, x.to_vec())?,
            columns: Tensor::new(lane, vec![f32::NAN; rows * own_n])?,
        })
    }

    /// Makes the calls and waits for them.
    pub fn run(&mut self, worker: &mut Worker) -> Result<()> {
        let Worker { rank, lane } = worker;
        let row = &self.row;
        let stored = self.stored.output(lane, Epilogue::Store);
        row.forward(rank, lane.stream(), self.shard.input(lane), stored)?;
        let added = self.added.output(lane, Epilogue::Add);
        row.forward(rank, lane.stream(), self.shard.input(lane), added)?;
        let columns = self.columns.output(lane, Epilogue::Store);
        self.column
            .forward(rank, lane.stream(), self.x.input(lane), &mut [columns])?;
        worker.finish()
    }

    /// What they left.
    pub fn outputs(&self, worker: &Worker) -> Result<RankOutputs> {
        let lane = &worker.lane;
        Ok(RankOutputs {
            stored: self.stored.values(lane)?,
            added: self.added.values(lane)?,
            columns: self.columns.values(lane)?,
        })
    }
}

/// The ranks' columns beside one another, [M, N].
pub fn join_columns(ranks: &[RankOutputs], n: usize) -> Result<Vec<f32>> {
    let split = Split::even(n, ranks.len())?;
    let values: usize = ranks.iter().map(|rank| rank.columns.len()).sum();
    let mut whole = vec![f32::NAN; values];
    for (rank, range) in ranks.iter().zip(split.iter()) {
        // A rank without columns has no rows to be cut into either.
        let rows = rank.columns.chunks_exact(range.len().max(1));
        for (part, whole) in rows.zip(whole.chunks_exact_mut(n)) {
            whole[range.clone()].copy_from_slice(part);
        }
    }
    Ok(whole)
}

/// Some columns of `x` [M, k].
fn columns(x: &[f16], k: usize, range: Range<usize>) -> Vec<f16> {
    x.chunks_exact(k)
        .flat_map(|row| &row[range.clone()])
        .copied()
        .collect()
}
