//! What one rank enqueues for one layer: the place where the variants differ in what runs.

use super::kit::Kit;
use super::variant::Variant;
use crate::ranks::{Lane, Worker};
use crate::tensor::{Element, Tensor};
use anyhow::{Context as _, Result};
use half::f16;
use trellink::format::GROUP;
use trellink::{AllReduce, Epilogue, RmsNorm, RowParallel};

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
    norm: Option<Norm>,
    /// [M, N/128], for the sums of squares of the output.
    squares: Option<Tensor<f32>>,
}

/// What a call with an RMSNorm has besides.
struct Norm {
    /// [N].
    weight: Tensor<f16>,
    /// [M, N], the next layer's input.
    out: Tensor<f16>,
}

impl<'a, R: Element> Call<'a, R> {
    /// Calls with this input, and with this output [M, `n`] to begin with.
    pub fn new(
        variant: Variant,
        kit: &'a Kit,
        lane: &Lane,
        n: usize,
        x: Vec<f16>,
        out: Vec<R>,
    ) -> Result<Self> {
        let message = match variant {
            Variant::Nccl | Variant::AllReduce => Some(Tensor::for_peers(lane, out.clone())?),
            _ => None,
        };
        let norm = match variant {
            Variant::FusedNorm => Some(Norm {
                weight: Tensor::new(lane, vec![f16::ONE; n])?,
                out: Tensor::new(lane, vec![f16::ZERO; out.len()])?,
            }),
            _ => None,
        };
        let squares = match variant {
            Variant::FusedSquares => Some(Tensor::new(lane, vec![0.0; out.len() / GROUP])?),
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
            norm,
            squares,
        })
    }

    /// Enqueues one call.
    pub fn enqueue(&mut self, worker: &mut Worker, layer: &RowParallel) -> Result<()> {
        match self.variant {
            Variant::Fused
            | Variant::FusedNorm
            | Variant::FusedSquares
            | Variant::FusedHostMemory
            | Variant::Gemm => self.forward(worker, layer, Epilogue::Add),
            Variant::GemmAllReduce => {
                self.forward(worker, layer, Epilogue::Store)?;
                self.kit.own_sum(&worker.lane, &mut self.out)
            }
            Variant::AllReduce => {
                let Worker { rank, lane } = worker;
                let message = self.message.as_ref().context("there is no message")?;
                let (input, output) = (message.input(lane), self.out.output(lane, Epilogue::Store));
                Ok(AllReduce::new().run(rank, lane.stream(), input, output)?)
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
        let mut output = self.out.output(lane, epilogue);
        if let Some(Norm { weight, out }) = &mut self.norm {
            let out = out.output(lane, Epilogue::Store);
            output = output.rms_norm(RmsNorm::new(weight.input(lane), 1e-5, out));
        }
        if let Some(squares) = &mut self.squares {
            output = output.sums_of_squares(squares.output(lane, Epilogue::Store));
        }
        Ok(layer.forward(rank, lane.stream(), self.x.input(lane), output)?)
    }

    /// Whether everything that has run went well, also what is none of the worker's rank.
    pub fn check(&self) -> Result<()> {
        self.kit.check()
    }

    /// The output, once everything that was enqueued is done.
    pub fn values(&self, worker: &Worker) -> Result<Vec<R>> {
        self.out.values(&worker.lane)
    }
}
