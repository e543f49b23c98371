//! Layers and their launches, cut and shaped by the library's own code.

use crate::bindings::{
    TrellinkColumns, TrellinkDecode, TrellinkLinear, TrellinkNorm, TrellinkSegment,
    TrellinkTransform,
};
use crate::{fault, Buffer, Channel, SimRank};
use half::f16;
use trellink::format::layout::BlockLayout;
use trellink::format::{Codebook, DType, GROUP, TILE};
use trellink::plan::{LaunchShape, LinearKernel, Machine, TransformShape, Work};
use trellink::protocol::{messages, Operation, OperationKind};
use trellink::weights::Linear;
use trellink::{Arithmetic, Epilogue};

extern "C" {
    fn trellink_sim_most_tokens() -> u32;
    fn trellink_sim_rings() -> bool;
    fn trellink_sim_linear(params: *const TrellinkLinear, kernel: u32, straight: bool, grid: u32);
    fn trellink_sim_transform(params: *const TrellinkTransform, tokens: u32, bf16: bool, grid: u32);
    fn trellink_sim_decode(params: *const TrellinkDecode, grid: u32);
}

/// A shard in "device" memory.
#[derive(Debug)]
pub struct SimLinear {
    k: usize,
    n: usize,
    codebook: Codebook,
    half_bits: usize,
    blocks: Buffer,
    suh: Buffer,
    svh: Buffer,
    bias: Option<Buffer>,
}

/// An output of a call and what happens to it.
#[derive(Debug)]
pub struct SimOutput {
    /// `[rows, n]`.
    pub data: Buffer,
    /// Its element type.
    pub dtype: DType,
    /// Store or add.
    pub epilogue: Epilogue,
}

/// One call of one rank.
#[derive(Debug)]
pub struct Call<'a> {
    /// The layers, over one input.
    pub layers: &'a [&'a SimLinear],
    /// `[rows, k]`.
    pub input: &'a Buffer,
    /// F16 or Bf16.
    pub dtype: DType,
    /// Rows.
    pub rows: usize,
    /// Decides over the kernel.
    pub arithmetic: Arithmetic,
    /// One per layer, or one that all share.
    pub outputs: &'a [&'a SimOutput],
}

/// The RMSNorm of the rows of a call with one output.
#[derive(Debug)]
pub struct SimNorm {
    /// `[n]`.
    pub weight: Buffer,
    /// Any.
    pub weight_dtype: DType,
    /// Added to the mean of the squares.
    pub epsilon: f32,
    /// `[rows, n]`.
    pub data: Buffer,
    /// F16 or Bf16.
    pub dtype: DType,
}

/// What a call goes through besides; by default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogues<'a> {
    /// The norm of the rows of the one output, which fit a slot.
    pub norm: Option<&'a SimNorm>,
    /// f32 `[rows, n / 128]`: for the sums of the squares of the rows of the one output.
    pub squares_out: Option<&'a Buffer>,
    /// f32 `[rows, k / 128]`, and what is added to their mean: the input is normalised.
    pub squares_in: Option<(&'a Buffer, f32)>,
    /// Two layers' rows, which fit a slot together, become one output: that of the first.
    pub gated: bool,
}

impl Epilogues<'_> {
    /// Whether nothing is done but to rows.
    fn leave_columns(&self) -> bool {
        self.squares_in.is_none() && !self.gated
    }

    fn norm(&self, n: usize) -> TrellinkNorm {
        TrellinkNorm {
            squares: self.squares_out.map_or(0, Buffer::pointer),
            square_stride: (n / GROUP) as u64,
            ..self
                .norm
                .map_or(TrellinkNorm::default(), |norm| norm.params(n))
        }
    }

    fn columns(&self, k: usize) -> TrellinkColumns {
        let (squares, epsilon) = self.squares_in.map_or((0, 0.0), |(s, e)| (s.pointer(), e));
        TrellinkColumns {
            squares,
            epsilon,
            inverse_k: 1.0 / k as f32,
            gated: self.gated.into(),
            ..Default::default()
        }
    }
}

impl SimNorm {
    fn params(&self, n: usize) -> TrellinkNorm {
        TrellinkNorm {
            out: self.data.pointer(),
            weight: self.weight.pointer(),
            epsilon: self.epsilon,
            inverse_n: 1.0 / n as f32,
            out_dtype: dtype_code(self.dtype),
            weight_dtype: dtype_code(self.weight_dtype),
            ..Default::default()
        }
    }
}

impl SimLinear {
    /// Packs a shard.
    pub fn new(linear: &Linear<'_>) -> Self {
        let trellis = linear.trellis();
        let pack = BlockLayout::new(linear.bits())
            .pack(linear.k(), linear.n(), |kt, nt| trellis.tile(kt, nt));
        SimLinear {
            k: linear.k(),
            n: linear.n(),
            codebook: linear.codebook(),
            half_bits: linear.bits().half_bits(),
            blocks: Buffer::new(&pack),
            suh: Buffer::new(&linear.suh().to_vec()),
            svh: Buffer::new(&linear.svh().to_vec()),
            bias: linear.bias().map(|bias| Buffer::new(&bias.to_vec())),
        }
    }

    fn segment(&self, first_strip: u32, output: &SimOutput) -> TrellinkSegment {
        TrellinkSegment {
            blocks: self.blocks.pointer(),
            suh: self.suh.pointer(),
            svh: self.svh.pointer(),
            bias: self.bias.as_ref().map_or(0, Buffer::pointer),
            out: output.data.pointer(),
            out_stride: self.n as u64,
            first_strip,
            strips: (self.n / TILE) as u32,
            codebook: codebook_code(self.codebook),
            half_bits: self.half_bits as u32,
            out_dtype: dtype_code(output.dtype),
            epilogue: epilogue_code(output.epilogue),
        }
    }
}

impl SimRank {
    /// Runs a call to its end, launch by launch; every rank of the channel must run it at the same
    /// time.
    pub fn run(&mut self, channel: Channel, call: &Call<'_>) {
        self.run_with(channel, call, Epilogues::default());
    }

    /// The same for a call that goes through more.
    ///
    /// # Panics
    /// If rows that must be whole do not fit a slot, or a norm or sums of squares are wanted of several layers' rows.
    pub fn run_with(&mut self, channel: Channel, call: &Call<'_>, epilogues: Epilogues<'_>) {
        let first = call.layers[0];
        let together: usize = call.layers.iter().map(|layer| layer.n).sum();
        let whole_rows = epilogues.norm.is_some() || epilogues.gated;
        let of_rows = epilogues.norm.is_some() || epilogues.squares_out.is_some();
        assert!(!of_rows || call.layers.len() == 1, "one layer's rows");
        assert!(
            !whole_rows || together <= self.config.slot_values,
            "rows must be whole"
        );
        fault::choose(&self.faults);
        let operation = Operation {
            kind: match channel {
                Channel::Group => OperationKind::RowParallel,
                Channel::Local => OperationKind::ColumnParallel,
            },
            rows: call.rows as u32,
            columns: together as u64,
            input: call.dtype,
            output: call.outputs[0].dtype,
            epilogue: Epilogue::Store,
            layer: 0,
        };
        let mut whole = TrellinkLinear {
            norm: epilogues.norm(first.n),
            columns: epilogues.columns(first.k),
            x: call.input.pointer(),
            x_dtype: dtype_code(call.dtype),
            exchange: self.exchange(channel, operation),
            ..Default::default()
        };
        for (layer, output) in call.layers.iter().zip(call.outputs.iter().cycle()) {
            if layer.n > 0 {
                whole.x_stride = layer.k as u64;
                whole.k_groups = (layer.k / GROUP) as u32;
                whole.segment[whole.segments as usize] = layer.segment(whole.strips, output);
                whole.segments += 1;
                whole.strips += (layer.n / TILE) as u32;
            }
        }
        let columns = whole.strips as usize * TILE;
        let codebooks = call.layers.iter().map(|layer| layer.codebook);
        let kernel = LinearKernel::choose(call.arithmetic, call.rows, most_tokens(), codebooks);
        for message in messages(call.rows, columns, self.config.slot_values) {
            let first_row = message.rows.start as u64;
            let mut params = whole;
            params.rows = message.rows.len() as u32;
            params.first_strip = (message.columns.start / TILE) as u32;
            params.strips = (message.columns.len() / TILE) as u32;
            params.x += first_row * params.x_stride * 2;
            for segment in &mut params.segment[..params.segments as usize] {
                let size = if segment.out_dtype == 2 { 4 } else { 2 };
                segment.out += first_row * segment.out_stride * size;
            }
            if params.norm.out != 0 {
                params.norm.out += first_row * columns as u64 * 2;
            }
            if params.norm.squares != 0 {
                params.norm.squares += first_row * params.norm.square_stride * 4;
            }
            if params.columns.squares != 0 {
                params.columns.squares += first_row * u64::from(params.k_groups) * 4;
            }
            let half_bits = params.segment.map(|segment| segment.half_bits as usize);
            let work = Work {
                rows: params.rows as usize,
                strips: params.strips as usize,
                k_groups: params.k_groups as usize,
                half_bits: &half_bits[..params.segments as usize],
                choices: self.config.choices,
            };
            let machine = Machine {
                sms: self.config.sms,
                max_shared_bytes: self.config.max_shared_bytes,
                cluster_pairs: self.config.cluster_pairs,
                most_tokens: most_tokens(),
                // SAFETY: no precondition.
                rings: unsafe { trellink_sim_rings() },
            };
            let shape = LaunchShape::new(kernel, call.arithmetic, &work, machine);
            let _operands = shape.transform.map(|shape| transform(&mut params, shape));
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
            let format = (first.codebook, first.half_bits);
            let straight = self.config.straight
                && epilogues.leave_columns()
                && shape.straight
                && shape.kernel.straight_formats().contains(&format);
            self.straight_launches += usize::from(straight);
            // SAFETY: every pointer in `params` is that of a buffer that `call` or `self` borrows,
            // with the sizes that the kernel derives from the same numbers.
            unsafe { trellink_sim_linear(&params, shape.kernel as u32, straight, shape.grid) };
        }
    }
}

/// Runs the launch that transforms the input of another one; its operands, in memory of just their size.
fn transform(linear: &mut TrellinkLinear, shape: TransformShape) -> Buffer {
    let bytes = shape.operand_stride as usize * linear.segments as usize;
    // NaN, so that what the launch leaves out shows.
    let operands = Buffer::new(&vec![0xffu8; bytes]);
    linear.operands = operands.pointer();
    linear.operand_stride = shape.operand_stride;
    let params = TrellinkTransform {
        x: linear.x,
        x_stride: linear.x_stride,
        rows: linear.rows,
        k_groups: linear.k_groups,
        segments: linear.segments,
        operands: linear.operands,
        operand_stride: shape.operand_stride,
        suh: linear.segment.map(|segment| segment.suh),
        ..Default::default()
    };
    // SAFETY: the operands are held here; the rest is as for the linear launch.
    unsafe {
        let bf16 = linear.x_dtype == dtype_code(DType::Bf16);
        trellink_sim_transform(&params, shape.pass_tokens, bf16, shape.grid);
    }
    operands
}

/// Tokens that a pass may have on the simulated architecture.
pub fn most_tokens() -> usize {
    // SAFETY: no precondition.
    unsafe { trellink_sim_most_tokens() as usize }
}

/// The decoded matrix `[K, N]`, by the decode kernel.
pub fn decode(linear: &Linear<'_>) -> Vec<f16> {
    let layer = SimLinear::new(linear);
    let out = Buffer::new(&vec![f16::NAN; layer.k * layer.n]);
    let params = TrellinkDecode {
        blocks: layer.blocks.pointer(),
        out: out.pointer(),
        strips: (layer.n / TILE) as u32,
        k_groups: (layer.k / GROUP) as u32,
        codebook: codebook_code(layer.codebook),
        half_bits: layer.half_bits as u32,
    };
    // SAFETY: both buffers live here and have the sizes that the kernel derives.
    unsafe { trellink_sim_decode(&params, 3) };
    out.read()
}

fn codebook_code(codebook: Codebook) -> u32 {
    match codebook {
        Codebook::ThreeInst => 0,
        Codebook::Mcg => 1,
        Codebook::Mul1 => 2,
    }
}

pub(crate) fn epilogue_code(epilogue: Epilogue) -> u32 {
    match epilogue {
        Epilogue::Store => crate::bindings::TRELLINK_EPILOGUE_STORE,
        Epilogue::Add => crate::bindings::TRELLINK_EPILOGUE_ADD,
    }
}

pub(crate) fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => crate::bindings::TRELLINK_DTYPE_F16,
        DType::Bf16 => crate::bindings::TRELLINK_DTYPE_BF16,
        DType::F32 => crate::bindings::TRELLINK_DTYPE_F32,
    }
}
