//! One call of a layer as kernel launches.
//!
//! A call is one launch unless its output exceeds what the arena's slots hold. Then whole rows are
//! cut off, and only where a single row does not fit, columns of a row: the cut of the columns
//! among CTAs, and with it the order of additions, then never depends on the number of rows.

use super::call::{DeviceInput, DeviceOutput, StreamHandle};
use super::kernels::Kernel;
use super::layer::CudaLinear;
use super::rank::CudaRank;
use crate::call::Epilogue;
use crate::ffi::{
    TrellinkExchange, TrellinkLinear, TRELLINK_DTYPE_BF16, TRELLINK_DTYPE_F16, TRELLINK_DTYPE_F32,
    TRELLINK_EPILOGUE_ADD, TRELLINK_EPILOGUE_STORE, TRELLINK_LINEAR_THREADS, TRELLINK_MAX_SEGMENTS,
};
use crate::format::{DType, GROUP, TILE};
use crate::Result;

const GROUP_STRIPS: usize = GROUP / TILE;
/// Tokens that the kernel for few rows takes in a pass.
const SMALL_PASS: usize = 8;
/// Tokens that the other kernel takes in a pass.
const LARGE_PASS: usize = 32;

/// One output of a launch, with its layer.
pub(crate) struct Part<'a> {
    pub(crate) layer: &'a CudaLinear,
    pub(crate) output: &'a DeviceOutput<'a>,
    pub(crate) epilogue: Epilogue,
}

impl CudaRank {
    /// Enqueues a row-parallel layer. Lengths are checked by the caller.
    pub(crate) fn row_parallel(
        &mut self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        rows: usize,
        part: Part<'_>,
    ) -> Result<()> {
        self.check()?;
        let exchange = *self.group_exchange();
        self.enqueue(stream, input, rows, &[part], &exchange)
    }

    /// Enqueues column-parallel layers over one input. Lengths are checked by the caller.
    pub(crate) fn column_parallel(
        &mut self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        rows: usize,
        parts: &[Part<'_>],
    ) -> Result<()> {
        self.check()?;
        let exchange = *self.local_exchange();
        self.enqueue(stream, input, rows, parts, &exchange)
    }

    fn enqueue(
        &self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        rows: usize,
        parts: &[Part<'_>],
        exchange: &TrellinkExchange,
    ) -> Result<()> {
        let mut params = describe(input, parts, exchange);
        let columns = params.strips as usize * TILE;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let rows_per_launch = self.slot_values() / columns;
        if rows_per_launch > 0 {
            return self.launch_rows(stream, input, parts, &mut params, rows, rows_per_launch);
        }
        // A slot holds at least one group of columns: Group rounds it up.
        let strips = self.slot_values() / GROUP * GROUP_STRIPS;
        let all = params.strips;
        for first_strip in (0..all).step_by(strips) {
            params.first_strip = first_strip;
            params.strips = (strips as u32).min(all - first_strip);
            self.launch_rows(stream, input, parts, &mut params, rows, 1)?;
        }
        Ok(())
    }

    /// Launches the strips in `params` for all rows, `rows_per_launch` at a time.
    fn launch_rows(
        &self,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        parts: &[Part<'_>],
        params: &mut TrellinkLinear,
        rows: usize,
        rows_per_launch: usize,
    ) -> Result<()> {
        for row in (0..rows).step_by(rows_per_launch) {
            params.rows = rows_per_launch.min(rows - row) as u32;
            params.x = input.pointer + row as u64 * params.x_stride * input.dtype.size() as u64;
            let launched = parts.iter().filter(|part| part.layer.n() > 0);
            for (segment, part) in params.segment.iter_mut().zip(launched) {
                let offset = row as u64 * segment.out_stride * part.output.dtype.size() as u64;
                segment.out = part.output.pointer + offset;
            }
            self.launch(stream, params)?;
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

/// Everything of a launch that does not depend on rows and cuts. Layers without columns are left out.
fn describe(
    input: &DeviceInput<'_>,
    parts: &[Part<'_>],
    exchange: &TrellinkExchange,
) -> TrellinkLinear {
    let mut params = TrellinkLinear {
        x_dtype: dtype_code(input.dtype),
        exchange: *exchange,
        ..Default::default()
    };
    for part in parts.iter().filter(|part| part.layer.n() > 0) {
        debug_assert!(params.segments < TRELLINK_MAX_SEGMENTS);
        let mut segment = part.layer.segment(params.strips);
        segment.out_stride = part.layer.n() as u64;
        segment.out_dtype = dtype_code(part.output.dtype);
        segment.epilogue = match part.epilogue {
            Epilogue::Store => TRELLINK_EPILOGUE_STORE,
            Epilogue::Add => TRELLINK_EPILOGUE_ADD,
        };
        params.x_stride = part.layer.k() as u64;
        params.k_groups = part.layer.k_groups();
        params.segment[params.segments as usize] = segment;
        params.segments += 1;
        params.strips += part.layer.strips();
    }
    params
}

fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => TRELLINK_DTYPE_F16,
        DType::Bf16 => TRELLINK_DTYPE_BF16,
        DType::F32 => TRELLINK_DTYPE_F32,
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
