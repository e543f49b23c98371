//! Calls that are replayed: captured on a GPU, on the host made one after the other.

use super::operation::Operation;
use crate::ranks::Worker;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;

/// Operations by their number in the round.
pub type Operations = BTreeMap<usize, Operation>;

/// A graph, and what it calls.
pub struct Recording {
    calls: Vec<usize>,
    /// On a GPU. It goes before the operations whose memory it names.
    #[cfg(feature = "cuda")]
    graph: Option<cudarc::driver::CudaGraph>,
}

impl Recording {
    /// Captures calls of these operations, without making them.
    pub fn new(worker: &mut Worker, operations: &mut Operations, calls: &[usize]) -> Result<Self> {
        #[cfg(feature = "cuda")]
        let graph = match &worker.lane {
            crate::ranks::Lane::Cuda(stream) => {
                let stream = stream.clone();
                let graph = crate::graph::capture(worker, &stream, |worker| {
                    call_all(worker, operations, calls)
                })?;
                Some(graph)
            }
            crate::ranks::Lane::Host => None,
        };
        #[cfg(not(feature = "cuda"))]
        let _ = (worker, operations);
        Ok(Recording {
            calls: calls.to_vec(),
            #[cfg(feature = "cuda")]
            graph,
        })
    }

    /// The operations that it calls, one as often as it is called.
    pub fn calls(&self) -> &[usize] {
        &self.calls
    }

    /// Enqueues all calls.
    pub fn replay(&self, worker: &mut Worker, operations: &mut Operations) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(graph) = &self.graph {
            return crate::graph::launch(graph);
        }
        call_all(worker, operations, &self.calls)
    }
}

fn call_all(worker: &mut Worker, operations: &mut Operations, calls: &[usize]) -> Result<()> {
    calls
        .iter()
        .try_for_each(|&at| get(operations, at)?.call(worker))
}

/// The operation with this number, which the plan says is there.
pub fn get(operations: &mut Operations, at: usize) -> Result<&mut Operation> {
    operations
        .get_mut(&at)
        .with_context(|| format!("the plan calls operation {at}, which is not there"))
}
