//! Timing on a GPU: one captured graph per rank walks through the layers, events stand around it.
//!
//! What must stay true: between the two events there is a replay of the graph and nothing of the
//! host. The walk before it, launched just ahead, keeps the GPU busy while the host enqueues the
//! events and the graph, and lets the ranks' exchanges bring the GPUs into step.

use super::Repeat;
use crate::graph;
use crate::ranks::{Gate, Worker};
use crate::tensor::driver;
use anyhow::Result;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};
use std::sync::Arc;

/// Seconds of each replay.
pub(super) fn time(
    walk: &mut impl Repeat,
    worker: &mut Worker,
    stream: &Arc<CudaStream>,
    replays: usize,
    gate: &Gate,
) -> Result<Vec<f64>> {
    // Outside a graph: NCCL connects its ranks in the first call of a size, which is nothing for a capture.
    walk.once(worker)?;
    worker.finish()?;
    let graph = graph::capture(worker, stream, |worker| walk.run(worker))?;
    gate.wait()?;
    graph::launch(&graph)?;
    worker.finish()?;
    let replay = |_| {
        gate.wait()?;
        graph::launch(&graph)?;
        let start = event(stream)?;
        graph::launch(&graph)?;
        let end = event(stream)?;
        worker.finish()?;
        let milliseconds = driver("cuEventElapsedTime", start.elapsed_ms(&end))?;
        Ok(f64::from(milliseconds) / 1e3)
    };
    (0..replays).map(replay).collect()
}

fn event(stream: &Arc<CudaStream>) -> Result<CudaEvent> {
    driver(
        "cuEventRecord",
        stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)),
    )
}
