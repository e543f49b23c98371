//! Walks through the layers, timed on all ranks at once.

#[cfg(feature = "cuda")]
mod cuda;
mod host;

use super::call::Call;
use super::kit::Kit;
use super::load::Bench;
use super::variant::Variant;
use crate::ranks::{Gate, Lane, Worker};
use crate::tensor::Element;
use anyhow::{bail, Result};
use serde::{Deserialize, Serialize};
use trellink::RowParallel;

/// µs per call over the replays; of each replay the slowest rank counts.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// The middle one.
    #[serde(rename = "us_median")]
    pub median: f64,
    /// The fastest.
    #[serde(rename = "us_min")]
    pub min: f64,
    /// The slowest.
    #[serde(rename = "us_max")]
    pub max: f64,
}

/// One rank's walk: a call for each layer.
struct Walk<'a, R> {
    layers: &'a [RowParallel],
    call: Call<'a, R>,
}

/// Calls that are timed together.
pub trait Repeat {
    /// One call.
    fn once(&mut self, worker: &mut Worker) -> Result<()>;
    /// All calls.
    fn run(&mut self, worker: &mut Worker) -> Result<()>;
}

/// Seconds of each replay of `walk` on this rank.
pub fn time(
    walk: &mut impl Repeat,
    worker: &mut Worker,
    replays: usize,
    gate: &Gate,
) -> Result<Vec<f64>> {
    match &worker.lane {
        Lane::Host => host::time(walk, worker, replays, gate),
        #[cfg(feature = "cuda")]
        Lane::Cuda(stream) => cuda::time(walk, worker, &stream.clone(), replays, gate),
    }
}

impl<R: Element> Repeat for Walk<'_, R> {
    fn once(&mut self, worker: &mut Worker) -> Result<()> {
        let mut first = self.layers.iter().take(1);
        first.try_for_each(|layer| self.call.enqueue(worker, layer))
    }

    fn run(&mut self, worker: &mut Worker) -> Result<()> {
        let mut layers = self.layers.iter();
        layers.try_for_each(|layer| self.call.enqueue(worker, layer))
    }
}

impl<R: Element> Walk<'_, R> {
    fn check_finite(&self, worker: &Worker) -> Result<()> {
        self.call.check()?;
        let values = self.call.values(worker)?;
        if values.into_iter().all(|value| value.widen().is_finite()) {
            return Ok(());
        }
        bail!("the outputs did not stay finite: what was timed is not what a model computes");
    }
}

/// Seconds of `replays` walks with `m` rows, by rank of the crew, after one that is not timed.
pub fn replays<R: Element>(
    bench: &mut Bench,
    kits: &[Kit],
    variant: Variant,
    m: usize,
    replays: usize,
) -> Result<Vec<Vec<f64>>> {
    let (n, layers, ranges, first) = (bench.n, &bench.layers, &bench.ranges, bench.first);
    let mut walks = bench.crew.each(|at, worker| {
        let rank = first + at;
        let mut random = crate::random::generator(4 + rank as u64);
        let out = crate::random::activations(&mut random, m * n).into_iter();
        let out = out.map(|value| R::round(value.to_f32())).collect();
        let x = crate::random::activations(&mut random, m * ranges[rank].len());
        Ok(Walk {
            layers: &layers[at],
            call: Call::new(variant, &kits[at], &worker.lane, n, x, out)?,
        })
    })?;
    let seconds = bench.crew.together(&mut walks, |_, worker, walk, gate| {
        time(walk, worker, replays, gate)
    })?;
    bench
        .crew
        .each_with(&mut walks, |_, worker, walk| walk.check_finite(worker))?;
    Ok(seconds)
}

/// The times of so many calls, from `seconds` by rank and replay.
pub fn summary(seconds: &[Vec<f64>], calls: usize) -> Times {
    // In processes of their own some ranks may have nothing to run.
    let seconds: Vec<_> = seconds.iter().filter(|rank| !rank.is_empty()).collect();
    let replays = seconds.iter().map(|rank| rank.len()).min().unwrap_or(0);
    let slowest = |replay: usize| seconds.iter().map(|rank| rank[replay]).fold(0.0, f64::max);
    let mut us: Vec<f64> = (0..replays)
        .map(|at| slowest(at) * 1e6 / calls as f64)
        .collect();
    us.sort_by(f64::total_cmp);
    Times {
        median: (us[(us.len() - 1) / 2] + us[us.len() / 2]) / 2.0,
        min: us[0],
        max: us[us.len() - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_rank_of_each_replay_counts() {
        let times = summary(
            &[vec![2e-6, 8e-6, 4e-6, 4e-6], vec![6e-6, 2e-6, 2e-6, 2e-6]],
            2,
        );
        assert_eq!((times.min * 1e3).round(), 2e3);
        assert_eq!((times.median * 1e3).round(), 2.5e3);
        assert_eq!((times.max * 1e3).round(), 4e3);
    }
}
