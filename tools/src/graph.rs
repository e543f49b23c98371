//! CUDA graphs of a rank's calls.

use crate::ranks::Worker;
use crate::tensor::driver;
use anyhow::{Context as _, Result};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream};
use std::sync::Arc;

/// What `calls` enqueues on `stream`, as a graph that is ready to be launched. The mode is thread-local:
/// what other ranks' threads do meanwhile is not this capture's business.
pub fn capture(
    worker: &mut Worker,
    stream: &Arc<CudaStream>,
    calls: impl FnOnce(&mut Worker) -> Result<()>,
) -> Result<CudaGraph> {
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    driver("cuStreamBeginCapture", stream.begin_capture(mode))?;
    let enqueued = calls(worker);
    // The stream must leave capture mode, also after an error.
    let graph = driver(
        "cuStreamEndCapture",
        stream.end_capture(CUgraphInstantiate_flags(0)),
    );
    enqueued?;
    let graph = graph?.context("nothing was captured")?;
    // The first launch would otherwise allocate while other ranks already wait.
    driver("cuGraphUpload", graph.upload())?;
    Ok(graph)
}

/// Enqueues the graph's calls.
pub fn launch(graph: &CudaGraph) -> Result<()> {
    driver("cuGraphLaunch", graph.launch())
}
