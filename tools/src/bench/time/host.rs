//! Timing on the host: calls end when they return, so a clock around them is enough.

use super::Repeat;
use crate::ranks::{Gate, Worker};
use anyhow::Result;
use std::time::Instant;

/// Seconds of each replay.
pub(super) fn time(
    walk: &mut impl Repeat,
    worker: &mut Worker,
    replays: usize,
    gate: &Gate,
) -> Result<Vec<f64>> {
    walk.run(worker)?;
    let replay = |_| {
        gate.wait()?;
        let start = Instant::now();
        walk.run(worker)?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..replays).map(replay).collect()
}
