//! An all-reduce as kernel launches: one, unless the tensor exceeds what the arena's slots hold.

use super::call::{aligned_to, Site, StreamHandle};
use super::kernels::Launch;
use super::launch::{dtype_code, epilogue_code};
use super::rank::CudaRank;
use crate::call::{Input, Output, Stream};
use crate::ffi::{TrellinkAllReduce, TRELLINK_REDUCE_ONE_SHOT, TRELLINK_REDUCE_TWO_SHOT};
use crate::format::DType;
use crate::plan::reduce::{ReducePlan, ReduceShape, OCTET};
use crate::protocol::Operation;
use crate::Result;
use cudarc::driver::sys;

/// Kernels move 16 bytes at a time.
const ALIGNMENT: u64 = 16;

impl CudaRank {
    /// Enqueues the sum of `input`, or without one of what `output` holds, into `output`, as `plan` cuts
    /// `operation`. Lengths are checked by the caller.
    pub(crate) fn all_reduce(
        &mut self,
        plan: &ReducePlan,
        operation: Operation,
        stream: &Stream<'_>,
        input: Option<&Input<'_>>,
        output: &Output<'_>,
    ) -> Result<()> {
        let site = self.site(stream)?;
        let (out, epilogue) = (site.output(output)?, output.epilogue);
        aligned_to(ALIGNMENT, "output", out.pointer, out.dtype)?;
        let (x, x_dtype) = match input {
            Some(input) => read_from(input, &site)?,
            None => (out.pointer, out.dtype),
        };
        let exchange = self.group_channel().exchange(operation);
        for octets in plan.launches() {
            let shape = plan.shape(octets.len(), self.sm_share());
            let first = (octets.start * OCTET) as u64;
            let params = TrellinkAllReduce {
                x: x + first * x_dtype.size() as u64,
                out: out.pointer + first * out.dtype.size() as u64,
                octets: octets.len() as u32,
                chunks: shape.chunks,
                x_dtype: dtype_code(x_dtype),
                out_dtype: dtype_code(out.dtype),
                epilogue: epilogue_code(epilogue),
                form: form_code(plan),
                exchange,
            };
            self.launch_all_reduce(shape, &site.stream, &params)?;
        }
        Ok(())
    }

    fn launch_all_reduce(
        &self,
        shape: ReduceShape,
        stream: &StreamHandle<'_>,
        params: &TrellinkAllReduce,
    ) -> Result<()> {
        let kernels = self.kernels();
        let launch = Launch {
            grid: shape.grid,
            cluster: 1,
            threads: shape.threads,
            shared_bytes: 0,
            stream: stream.raw,
            early: self.may_launch_early(),
        };
        // SAFETY: the kernel takes a TrellinkAllReduce. Arenas and control words live as long as the
        // rank; the tensors were vouched for by whoever made them (a borrow, or the contract of the
        // unsafe constructor), for as long as the stream needs them, and the octets lie in them.
        unsafe { kernels.launch(kernels.all_reduce, launch, params) }
    }
}

fn read_from(input: &Input<'_>, site: &Site<'_>) -> Result<(sys::CUdeviceptr, DType)> {
    let x = site.input(input)?;
    aligned_to(ALIGNMENT, "input", x.pointer, x.dtype)?;
    Ok((x.pointer, x.dtype))
}

fn form_code(plan: &ReducePlan) -> u32 {
    if plan.two_shot {
        TRELLINK_REDUCE_TWO_SHOT
    } else {
        TRELLINK_REDUCE_ONE_SHOT
    }
}
