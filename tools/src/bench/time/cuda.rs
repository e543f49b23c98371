//! Timing on a GPU: one captured graph per rank walks through the layers, events stand around it.
//!
//! What must stay true: between the two events there is a replay of the graph and nothing of the
//! host. The walk before it, launched just ahead, keeps the GPU busy while the host enqueues the
//! events and the graph, and lets the ranks' exchanges bring the GPUs into step.

use super::Walk;
use crate::graph;
use crate::ranks::{Gate, Worker};
use crate::tensor::{driver, Element};
use anyhow::Result;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream};
use std::sync::Arc;

/// Seconds of each replay.
pub(super) fn time<R: Element>(
    walk: &mut Walk<'_, R>,
    worker: &mut Worker,
    stream: &Arc<CudaStream>,
    replays: usize,
    gate: &Gate,
) -> Result<Vec<f64>> {
    walk.warm_up(worker)?;
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

impl<R: Element> Walk<'_, R> {
    /// One call outside a graph: NCCL connects its ranks in the first call of a size, which is nothing
    /// for a capture.
    fn warm_up(&mut self, worker: &mut Worker) -> Result<()> {
        if let Some(layer) = self.layers.first() {
            self.call.enqueue(worker, layer)?;
        }
        worker.finish()
    }
}

fn event(stream: &Arc<CudaStream>) -> Result<CudaEvent> {
    driver(
        "cuEventRecord",
        stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)),
    )
}
