//! What one rank enqueues for one layer: the place where the variants differ in what runs.

use super::kit::Kit;
use super::variant::Variant;
use crate::ranks::{Lane, Worker};
use crate::tensor::{Element, Tensor};
use anyhow::Result;
use half::f16;
use trellink::{Epilogue, RowParallel};

/// One rank's calls of a variant, all on the same memory.
pub struct Call<'a, R> {
    variant: Variant,
    kit: &'a Kit,
    /// The input [M, this rank's K].
    x: Tensor<f16>,
    /// The output [M, N], which is added to what it holds where the variant has an epilogue.
    out: Tensor<R>,
    /// What is sent where no GEMM makes it. Sums of sums in place would not stay finite.
    message: Option<Tensor<R>>,
}

impl<'a, R: Element> Call<'a, R> {
    /// Calls with this input, and with this output to begin with.
    pub fn new(
        variant: Variant,
        kit: &'a Kit,
        lane: &Lane,
        x: Vec<f16>,
        out: Vec<R>,
    ) -> Result<Self> {
        let message = match variant {
            Variant::Nccl => Some(Tensor::for_peers(lane, out.clone())?),
            _ => None,
        };
        // Between GPUs of one process NCCL reaches into the tensors themselves.
        let out = match variant.uses_nccl() {
            true => Tensor::for_peers(lane, out)?,
            false => Tensor::new(lane, out)?,
        };
        Ok(Call {
            variant,
            kit,
            x: Tensor::new(lane, x)?,
            out,
            message,
        })
    }

    /// Enqueues one call.
    pub fn enqueue(&mut self, worker: &mut Worker, layer: &RowParallel) -> Result<()> {
        match self.variant {
            Variant::Fused | Variant::FusedHostMemory | Variant::Gemm => {
                self.forward(worker, layer, Epilogue::Add)
            }
            Variant::GemmNccl => {
                self.forward(worker, layer, Epilogue::Store)?;
                self.kit.nccl_sum(&worker.lane, None, &mut self.out)
            }
            Variant::Nccl => {
                let message = self.message.as_mut();
                self.kit.nccl_sum(&worker.lane, message, &mut self.out)
            }
            Variant::Floor => self.kit.read(&worker.lane, layer),
        }
    }

    fn forward(
        &mut self,
        worker: &mut Worker,
        layer: &RowParallel,
        epilogue: Epilogue,
    ) -> Result<()> {
        let Worker { rank, lane } = worker;
        let output = self.out.output(lane, epilogue);
        Ok(layer.forward(rank, lane.stream(), self.x.input(lane), output)?)
    }

    /// The output, once everything that was enqueued is done.
    pub fn values(&self, worker: &Worker) -> Result<Vec<R>> {
        self.out.values(&worker.lane)
    }
}
