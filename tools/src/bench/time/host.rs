//! Timing on the host: calls end when they return, so a clock around them is enough.

use super::Walk;
use crate::ranks::{Gate, Worker};
use crate::tensor::Element;
use anyhow::Result;
use std::time::Instant;

/// Seconds of each replay.
pub(super) fn time<R: Element>(
    walk: &mut Walk<'_, R>,
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
