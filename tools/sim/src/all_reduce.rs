//! All-reduces and their launches, cut and shaped by the library's own code.

use crate::bindings::{
    TrellinkAllReduce, TRELLINK_REDUCE_MAX_THREADS, TRELLINK_REDUCE_ONE_SHOT,
    TRELLINK_REDUCE_TWO_SHOT,
};
use crate::layer::{dtype_code, epilogue_code};
use crate::{fault, Buffer, Channel, SimOutput, SimRank};
use trellink::format::DType;
use trellink::plan::reduce::{ReducePlan, OCTET};
use trellink::protocol::{Operation, OperationKind};
use trellink::ReduceForm;

extern "C" {
    fn trellink_sim_all_reduce(params: *const TrellinkAllReduce, grid: u32, threads: u32);
}

/// One call of one rank.
#[derive(Debug)]
pub struct Reduction<'a> {
    /// `len` elements; the output's data where a call is in place.
    pub input: &'a Buffer,
    /// Any.
    pub dtype: DType,
    /// Elements, a multiple of 8.
    pub len: usize,
    /// One or two shots.
    pub form: ReduceForm,
    /// `len` elements.
    pub output: &'a SimOutput,
}

impl SimRank {
    /// Runs an all-reduce to its end, launch by launch; every rank must run it at the same time. The
    /// number of launches.
    pub fn all_reduce(&mut self, call: &Reduction<'_>) -> usize {
        fault::choose(&self.faults);
        let plan = ReducePlan::new(
            call.form,
            self.config.world,
            self.config.slot_values,
            call.len,
            (call.dtype, call.output.dtype),
            call.output.epilogue,
        );
        let operation = Operation {
            kind: match plan.two_shot {
                false => OperationKind::OneShot,
                true => OperationKind::TwoShot,
            },
            rows: 1,
            columns: call.len as u64,
            input: call.dtype,
            output: call.output.dtype,
            epilogue: call.output.epilogue,
            layer: 0,
        };
        let exchange = self.exchange(Channel::Group, operation);
        let mut launches = 0;
        for octets in plan.launches() {
            let shape = plan.shape(octets.len(), self.config.sms);
            assert!(shape.threads <= TRELLINK_REDUCE_MAX_THREADS);
            let at = |base: u64, dtype: DType| base + (octets.start * OCTET * dtype.size()) as u64;
            let params = TrellinkAllReduce {
                x: at(call.input.pointer(), call.dtype),
                out: at(call.output.data.pointer(), call.output.dtype),
                octets: octets.len() as u32,
                chunks: shape.chunks,
                x_dtype: dtype_code(call.dtype),
                out_dtype: dtype_code(call.output.dtype),
                epilogue: epilogue_code(call.output.epilogue),
                form: if plan.two_shot {
                    TRELLINK_REDUCE_TWO_SHOT
                } else {
                    TRELLINK_REDUCE_ONE_SHOT
                },
                exchange,
            };
            // SAFETY: every pointer in `params` is that of a buffer that `call` or `self` borrows,
            // with the sizes that the kernel derives from the same numbers.
            unsafe { trellink_sim_all_reduce(&params, shape.grid, shape.threads) };
            launches += 1;
        }
        launches
    }
}
