//! One call of a layer as kernel launches.
//!
//! A call is one launch unless its output exceeds what the arena's slots hold; then it is one for
//! each message. Ahead of each may go one that transforms its input. All work is done on the stack and in the driver.

use super::call::{DeviceInput, DeviceOutput, Site, StreamHandle};
use super::kernels::Launch;
use super::layer::CudaLinear;
use super::rank::{Channel, CudaRank};
use crate::call::{check_whole_rows, Columns, Epilogue, Input, InputNorm, Output, Stream};
use crate::ffi::{
    TrellinkColumns, TrellinkLinear, TrellinkNorm, TrellinkTransform, TRELLINK_DTYPE_BF16,
    TRELLINK_DTYPE_F16, TRELLINK_DTYPE_F32, TRELLINK_EPILOGUE_ADD, TRELLINK_EPILOGUE_STORE,
    TRELLINK_LINEAR_THREADS, TRELLINK_TRANSFORM_THREADS,
};
use crate::format::{DType, GROUP, TILE};
use crate::plan::{Call, Choices, LaunchShape, LinearKernel, Machine, TransformShape, Work};
use crate::protocol::{messages, Operation};
use crate::{Arithmetic, Result};

impl CudaRank {
    /// Enqueues a row-parallel layer. Lengths are checked by the caller.
    pub(crate) fn row_parallel(
        &mut self,
        layer: &CudaLinear,
        operation: Operation,
        arithmetic: Arithmetic,
        stream: &Stream<'_>,
        input: &Input<'_>,
        output: &Output<'_>,
    ) -> Result<()> {
        let (layers, outputs) = (std::slice::from_ref(layer), std::slice::from_ref(output));
        let (site, channel) = (self.site(stream)?, self.group_channel());
        let mut params = params(&site, layers, operation, input, outputs, channel)?;
        if output.norm.is_some() {
            check_whole_rows("an RMSNorm", layer.n(), self.slot_values())?;
        }
        params.norm = norm_params(&site, output, layer.n())?;
        self.enqueue(layers, arithmetic, &site, input, &params)
    }

    /// Enqueues column-parallel layers over one input. Lengths are checked by the caller.
    pub(crate) fn column_parallel(
        &mut self,
        layers: &[CudaLinear],
        operation: Operation,
        arithmetic: Arithmetic,
        stream: &Stream<'_>,
        input: &Input<'_>,
        columns: &Columns<'_, '_>,
    ) -> Result<()> {
        let (site, channel) = (self.site(stream)?, self.local_channel());
        let outputs = columns.outputs();
        let mut params = params(&site, layers, operation, input, outputs, channel)?;
        if let Some(norm) = &input.norm {
            params.columns = column_params(&site, norm, layers[0].k())?;
        }
        if let Columns::Gated(_) = columns {
            let together = params.strips as usize * TILE;
            check_whole_rows("SwiGLU", together, self.slot_values())?;
            params.columns.gated = 1;
        }
        self.enqueue(layers, arithmetic, &site, input, &params)
    }

    /// Enqueues the launches of a call.
    fn enqueue(
        &self,
        layers: &[CudaLinear],
        arithmetic: Arithmetic,
        site: &Site<'_>,
        input: &Input<'_>,
        params: &TrellinkLinear,
    ) -> Result<()> {
        let input = site.input(input)?;
        let rows = params.rows as usize;
        if rows == 0 || params.strips == 0 {
            return Ok(());
        }
        // By the rows of the whole call: its messages all use the same arithmetic.
        let present = layers.iter().filter(|layer| layer.n() > 0);
        let kernel = LinearKernel::choose(
            arithmetic,
            rows,
            self.kernels().most_tokens,
            present.map(CudaLinear::codebook),
        );
        let half_bits = params.segment.map(|segment| segment.half_bits as usize);
        let choices = self.tuning().choices(&Call {
            k: params.k_groups as usize * GROUP,
            n: params.strips as usize * TILE,
            half_bits: &half_bits[..params.segments as usize],
            rows,
            arithmetic,
        });
        self.launch_all(kernel, arithmetic, choices, &site.stream, input, params)
    }

    /// Cuts the call into launches that fit the slots. `whole.operands` is the workspace.
    fn launch_all(
        &self,
        kernel: LinearKernel,
        arithmetic: Arithmetic,
        choices: Choices,
        stream: &StreamHandle<'_>,
        input: &DeviceInput<'_>,
        whole: &TrellinkLinear,
    ) -> Result<()> {
        let rows = whole.rows as usize;
        let columns = whole.strips as usize * TILE;
        for message in messages(rows, columns, self.slot_values()) {
            let first_row = message.rows.start as u64;
            let mut params = *whole;
            params.rows = message.rows.len() as u32;
            params.first_strip = (message.columns.start / TILE) as u32;
            params.strips = (message.columns.len() / TILE) as u32;
            params.x = input.pointer + first_row * params.x_stride * input.dtype.size() as u64;
            for segment in &mut params.segment[..params.segments as usize] {
                let row_bytes = segment.out_stride * dtype_of(segment.out_dtype).size() as u64;
                segment.out += first_row * row_bytes;
            }
            if params.norm.out != 0 {
                let row_bytes = columns * dtype_of(params.norm.out_dtype).size();
                params.norm.out += first_row * row_bytes as u64;
            }
            let float = size_of::<f32>() as u64;
            if params.norm.squares != 0 {
                params.norm.squares += first_row * params.norm.square_stride * float;
            }
            if params.columns.squares != 0 {
                params.columns.squares += first_row * u64::from(params.k_groups) * float;
            }
            self.launch(kernel, arithmetic, choices, stream, &mut params)?;
        }
        Ok(())
    }

    /// Enqueues one launch and, where its shape has one, the transform ahead of it.
    fn launch(
        &self,
        kernel: LinearKernel,
        arithmetic: Arithmetic,
        choices: Choices,
        stream: &StreamHandle<'_>,
        params: &mut TrellinkLinear,
    ) -> Result<()> {
        let kernels = self.kernels();
        let half_bits = params.segment.map(|segment| segment.half_bits as usize);
        let work = Work {
            rows: params.rows as usize,
            strips: params.strips as usize,
            k_groups: params.k_groups as usize,
            half_bits: &half_bits[..params.segments as usize],
            choices,
        };
        let machine = Machine {
            sms: self.sm_share(),
            max_shared_bytes: kernels.max_shared_bytes,
            cluster_pairs: self.cluster_pairs(),
            most_tokens: kernels.most_tokens,
            rings: kernels.rings,
        };
        let shape = LaunchShape::new(kernel, arithmetic, &work, machine);
        match shape.transform {
            Some(transform) => self.launch_transform(stream, transform, params)?,
            None => params.operands = 0,
        }
        params.k_splits = shape.k_splits;
        params.units = shape.units;
        params.more_units = shape.more_units;
        params.whole_groups = shape.whole_groups.into();
        params.shared_bytes = shape.shared_bytes;
        params.warp_bytes = shape.warp_bytes;
        params.chunk_groups = shape.chunk_groups;
        params.span_log2 = shape.span_log2;
        params.places = shape.places;
        params.paired_half_bits = shape.paired_half_bits;
        let launch = Launch {
            grid: shape.grid,
            cluster: shape.k_splits,
            threads: TRELLINK_LINEAR_THREADS,
            shared_bytes: shape.shared_bytes,
            stream: stream.raw,
            early: self.may_launch_early(),
        };
        // SAFETY: the kernel takes a TrellinkLinear. Weights and control words live as long as the
        // layer and the rank; input and outputs were vouched for by whoever made them (a borrow,
        // or the contract of the unsafe constructor), for as long as the stream needs them.
        unsafe { kernels.launch(kernels.linear(&shape, params), launch, params) }
    }

    /// Enqueues the transform of a launch's input into the workspace, where the launch then finds it.
    fn launch_transform(
        &self,
        stream: &StreamHandle<'_>,
        shape: TransformShape,
        params: &mut TrellinkLinear,
    ) -> Result<()> {
        params.operand_stride = shape.operand_stride;
        let transform = TrellinkTransform {
            x: params.x,
            x_stride: params.x_stride,
            rows: params.rows,
            k_groups: params.k_groups,
            segments: params.segments,
            operands: params.operands,
            operand_stride: shape.operand_stride,
            suh: params.segment.map(|segment| segment.suh),
            ..Default::default()
        };
        let launch = Launch {
            grid: shape.grid,
            cluster: shape.cluster,
            threads: TRELLINK_TRANSFORM_THREADS,
            shared_bytes: 0,
            stream: stream.raw,
            early: self.may_launch_early(),
        };
        let kernels = self.kernels();
        let kernel = kernels.transform(&shape, dtype_of(params.x_dtype));
        // SAFETY: the kernel takes a TrellinkTransform. Input and scales as for the launch behind it. What it
        // writes fits the workspace, which lives as long as the rank; the launches of an exchange follow one
        // another, so no other uses it meanwhile.
        unsafe { kernels.launch(kernel, launch, &transform) }
    }
}

/// What all of a call's launches have alike, without further epilogues. Of an output that layers share each
/// has all.
fn params(
    site: &Site<'_>,
    layers: &[CudaLinear],
    operation: Operation,
    input: &Input<'_>,
    outputs: &[Output<'_>],
    channel: &Channel,
) -> Result<TrellinkLinear> {
    let input = site.input(input)?;
    let mut params = TrellinkLinear {
        x_dtype: dtype_code(input.dtype),
        rows: operation.rows,
        exchange: channel.exchange(operation),
        operands: channel.workspace(),
        ..Default::default()
    };
    for (layer, output) in layers.iter().zip(outputs.iter().cycle()) {
        append(&mut params, layer, site.output(output)?, output.epilogue);
    }
    Ok(params)
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
    segment.epilogue = epilogue_code(epilogue);
    params.x_stride = layer.k() as u64;
    params.k_groups = layer.k_groups();
    params.segment[params.segments as usize] = segment;
    params.segments += 1;
    params.strips += layer.strips();
}

/// What becomes of rows of `n` besides.
fn norm_params(site: &Site<'_>, output: &Output<'_>, n: usize) -> Result<TrellinkNorm> {
    let mut params = TrellinkNorm::default();
    if let Some(norm) = &output.norm {
        let (weight, out) = site.norm(norm)?;
        params = TrellinkNorm {
            out: out.pointer,
            weight: weight.pointer,
            epsilon: norm.epsilon,
            inverse_n: 1.0 / n as f32,
            out_dtype: dtype_code(out.dtype),
            weight_dtype: dtype_code(weight.dtype),
            ..params
        };
    }
    if let Some(squares) = &output.squares {
        params.squares = site.written_squares(squares)?.pointer;
        params.square_stride = (n / GROUP) as u64;
    }
    Ok(params)
}

/// How inputs of `k` channels are normalised.
fn column_params(site: &Site<'_>, norm: &InputNorm<'_>, k: usize) -> Result<TrellinkColumns> {
    Ok(TrellinkColumns {
        squares: site.read_squares(norm)?.pointer,
        epsilon: norm.epsilon,
        inverse_k: 1.0 / k as f32,
        ..Default::default()
    })
}

pub(super) fn epilogue_code(epilogue: Epilogue) -> u32 {
    match epilogue {
        Epilogue::Store => TRELLINK_EPILOGUE_STORE,
        Epilogue::Add => TRELLINK_EPILOGUE_ADD,
    }
}

pub(super) fn dtype_code(dtype: DType) -> u32 {
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
