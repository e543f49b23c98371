//! One call of a layer as kernel launches.
//!
//! A call is one launch unless its output exceeds what the arena's slots hold. Then whole rows are
//! cut off, and only where a single row does not fit, columns of a row: the cut of the columns
//! among CTAs, and with it the order of additions, then never depends on the number of rows.

use super::call::{input_of, output_of, stream_of, DeviceInput, DeviceOutput, StreamHandle};
use super::kernels::Kernel;
use super::layer::CudaLinear;
use super::rank::CudaRank;
use crate::call::{Epilogue, Input, Output, Stream};
use crate::ffi::{
    TrellinkExchange, TrellinkLinear, TRELLINK_DTYPE_BF16, TRELLINK_DTYPE_F16, TRELLINK_DTYPE_F32,
    TRELLINK_EPILOGUE_ADD, TRELLINK_EPILOGUE_STORE, TRELLINK_LINEAR_THREADS,
};
use crate::format::{DType, GROUP, TILE};
use crate::Result;

const GROUP_STRIPS: usize = GROUP / TILE;
/// Tokens that the kernel for few rows takes in a pass.
const SMALL_PASS: usize = 8;
/// Tokens that the other kernel takes in a pass.
const LARGE_PASS: usize = 32;

impl CudaRank {
    /// Enqueues a row-parallel layer. Lengths are checked by the caller.
    pub(crate) fn row_parallel(
        &mut self,
        layer: &CudaLinear,
        stream: &Stream<'_>,
        input: &Input<'_>,
        rows: usize,
        output: &Output<'_>,
    ) -> Result<()> {
        let exchange = *self.group_exchange();
        let (layers, outputs) = (std::slice::from_ref(layer), std::slice::from_ref(output));
        self.enqueue(layers, stream, input, rows, outputs, &exchange)
    }

    /// Enqueues column-parallel layers over one input. Lengths are checked by the caller.
    pub(crate) fn column_parallel(
        &mut self,
        layers: &[CudaLinear],
        stream: &Stream<'_>,
        input: &Input<'_>,
        rows: usize,
        outputs: &[Output<'_>],
    ) -> Result<()> {
        let exchange = *self.local_exchange();
        self.enqueue(layers, stream, input, rows, outputs, &exchange)
    }

    fn enqueue(
        &self,
        layers: &[CudaLinear],
        stream: &Stream<'_>,
        input: &Input<'_>,
        rows: usize,
        outputs: &[Output<'_>],
        exchange: &TrellinkExchange,
    ) -> Result<()> {
        self.check()?;
        let ordinal = self.ordinal();
        let stream = stream_of(stream, ordinal)?;
        let input = input_of(input, ordinal)?;
        let mut params = TrellinkLinear {
            x_dtype: dtype_code(input.dtype),
            exchange: *exchange,
            ..Default::default()
        };
        for (layer, output) in layers.iter().zip(outputs) {
            append(&mut params, layer, output_of(output, ordinal)?, output.epilogue);
        }
        if rows == 0 || params.strips == 0 {
            return Ok(());
        }
        self.launch_all(&stream, input, rows, &mut params)
    }

    /// Cuts the call into launches that fit the slots.
    fn launch_all(
        &self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        rows: usize,
        params: &mut TrellinkLinear,
    ) -> Result<()> {
        let all = params.strips;
        let rows_per_launch = self.slot_values() / (all as usize * TILE);
        if rows_per_launch > 0 {
            return self.launch_rows(stream, input, params, rows, rows_per_launch);
        }
        // A slot holds at least one group of columns: Group rounds it up.
        let strips = self.slot_values() / GROUP * GROUP_STRIPS;
        for first_strip in (0..all).step_by(strips) {
            params.first_strip = first_strip;
            params.strips = (strips as u32).min(all - first_strip);
            self.launch_rows(stream, input, &mut params.clone(), rows, 1)?;
        }
        Ok(())
    }

    /// Launches the strips in `params` for all rows, `rows_per_launch` at a time.
    fn launch_rows(
        &self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        params: &mut TrellinkLinear,
        rows: usize,
        rows_per_launch: usize,
    ) -> Result<()> {
        params.x = input.pointer;
        for row in (0..rows).step_by(rows_per_launch) {
            params.rows = rows_per_launch.min(rows - row) as u32;
            self.launch(stream, params)?;
            params.x += u64::from(params.rows) * params.x_stride * input.dtype.size() as u64;
            for segment in &mut params.segment[..params.segments as usize] {
                let row_bytes = segment.out_stride * dtype_of(segment.out_dtype).size() as u64;
                segment.out += u64::from(params.rows) * row_bytes;
            }
        }
        Ok(())
    }

    fn launch(&self, stream: &StreamHandle<'_>, params: &mut TrellinkLinear) -> Result<()> {
        let kernels = self.kernels();
        let (kernel, pass) = if params.rows as usize <= SMALL_PASS {
            (kernels.linear_8, SMALL_PASS)
        } else {
            (kernels.linear_32, LARGE_PASS)
        };
        params.shared_bytes = shared_bytes(kernel, pass, params);
        let grid = grid(params.strips as usize, self.sm_share());
        // SAFETY: the kernel takes a TrellinkLinear. Weights and control words live as long as the
        // layer and the rank; input and outputs were vouched for by whoever made them (a borrow,
        // or the contract of the unsafe constructor), for as long as the stream needs them.
        unsafe {
            kernels.launch(
                kernel,
                grid,
                TRELLINK_LINEAR_THREADS,
                params.shared_bytes,
                stream.raw,
                params,
            )
        }
    }
}

/// Adds a layer to a launch. A shard without columns has no part in it.
fn append(
    params: &mut TrellinkLinear,
    layer: &CudaLinear,
    output: &DeviceOutput<'_>,
    epilogue: Epilogue,
) {
    if layer.n() == 0 {
        return;
    }
    let mut segment = layer.segment(params.strips);
    segment.out = output.pointer;
    segment.out_stride = layer.n() as u64;
    segment.out_dtype = dtype_code(output.dtype);
    segment.epilogue = match epilogue {
        Epilogue::Store => TRELLINK_EPILOGUE_STORE,
        Epilogue::Add => TRELLINK_EPILOGUE_ADD,
    };
    params.x_stride = layer.k() as u64;
    params.k_groups = layer.k_groups();
    params.segment[params.segments as usize] = segment;
    params.segments += 1;
    params.strips += layer.strips();
}

fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => TRELLINK_DTYPE_F16,
        DType::Bf16 => TRELLINK_DTYPE_BF16,
        DType::F32 => TRELLINK_DTYPE_F32,
    }
}

fn dtype_of(code: u32) -> DType {
    match code {
        TRELLINK_DTYPE_F16 => DType::F16,
        TRELLINK_DTYPE_BF16 => DType::Bf16,
        _ => DType::F32,
    }
}

/// CTAs of a launch: no more than the rank's share of SMs, so that all of them are resident while
/// they wait; and no more than give each the same number of strips, give or take one.
fn grid(strips: usize, sm_share: usize) -> u32 {
    let strips_per_cta = strips.div_ceil(sm_share);
    strips.div_ceil(strips_per_cta) as u32
}

/// Shared memory for a pass over the whole K if it fits, else all there is; mirrors
/// csrc/linear/shared_layout.cuh, which cuts K into chunks of what fits.
fn shared_bytes(kernel: Kernel, pass: usize, params: &TrellinkLinear) -> u32 {
    const WARPS: usize = TRELLINK_LINEAR_THREADS as usize / 32;
    const SUM_STRIDE: usize = 20;
    let sums = WARPS * pass * SUM_STRIDE * 4;
    let tokens = pass.min(params.rows as usize);
    let per_group = pass * 4 + tokens * GROUP * 2;
    let wanted = sums + per_group * params.k_groups.max(1) as usize;
    wanted.min(kernel.max_shared_bytes) as u32
}
