// Generated from csrc/params.h with the `bindgen` feature; do not edit.

pub const TRELLINK_MAX_WORLD: u32 = 8;
pub const TRELLINK_MAX_SEGMENTS: u32 = 8;
pub const TRELLINK_LINEAR_THREADS: u32 = 512;
pub const TRELLINK_TRANSFORM_THREADS: u32 = 128;
pub const TRELLINK_MAX_CTAS: u32 = 256;
pub const TRELLINK_STREAM_THREADS: u32 = 512;
pub const TRELLINK_STREAM_CTAS_PER_SM: u32 = 3;
pub const TRELLINK_REDUCE_MAX_THREADS: u32 = 512;
pub const TRELLINK_LINK_PROBE_THREADS: u32 = 64;
pub const TRELLINK_LINK_PROBE_WORDS: u32 = 512;
pub const TRELLINK_DTYPE_F16: u32 = 0;
pub const TRELLINK_DTYPE_BF16: u32 = 1;
pub const TRELLINK_DTYPE_F32: u32 = 2;
pub const TRELLINK_EPILOGUE_STORE: u32 = 0;
pub const TRELLINK_EPILOGUE_ADD: u32 = 1;
pub const TRELLINK_REDUCE_ONE_SHOT: u32 = 0;
pub const TRELLINK_REDUCE_TWO_SHOT: u32 = 1;
pub const TRELLINK_STATE_OK: u32 = 0;
pub const TRELLINK_STATE_PEER_TIMEOUT: u32 = 1;
pub const TRELLINK_STATE_PEER_AHEAD: u32 = 2;
pub const TRELLINK_STATE_ABORTED: u32 = 3;
pub const TRELLINK_STATE_MISMATCH: u32 = 4;
pub const TRELLINK_LINK_UNFINISHED: u32 = 0;
pub const TRELLINK_LINK_GOOD: u32 = 1;
pub const TRELLINK_LINK_NO_PACKET: u32 = 2;
pub const TRELLINK_LINK_NO_FLAG: u32 = 3;
pub const TRELLINK_LINK_TORN_PACKET: u32 = 4;
pub const TRELLINK_LINK_STALE_DATA: u32 = 5;
pub const TRELLINK_LINK_WRONG_LOAD: u32 = 6;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkControl {
    pub failed: u32,
    pub scrub_mask: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkControl"][::core::mem::size_of::<TrellinkControl>() - 8usize];
    ["Alignment of TrellinkControl"][::core::mem::align_of::<TrellinkControl>() - 4usize];
    ["Offset of field: TrellinkControl::failed"]
        [::core::mem::offset_of!(TrellinkControl, failed) - 0usize];
    ["Offset of field: TrellinkControl::scrub_mask"]
        [::core::mem::offset_of!(TrellinkControl, scrub_mask) - 4usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkOperation {
    pub tag: u32,
    pub form: u32,
    pub rows: u32,
    pub layer: u32,
    pub columns: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkOperation"][::core::mem::size_of::<TrellinkOperation>() - 24usize];
    ["Alignment of TrellinkOperation"][::core::mem::align_of::<TrellinkOperation>() - 8usize];
    ["Offset of field: TrellinkOperation::tag"]
        [::core::mem::offset_of!(TrellinkOperation, tag) - 0usize];
    ["Offset of field: TrellinkOperation::form"]
        [::core::mem::offset_of!(TrellinkOperation, form) - 4usize];
    ["Offset of field: TrellinkOperation::rows"]
        [::core::mem::offset_of!(TrellinkOperation, rows) - 8usize];
    ["Offset of field: TrellinkOperation::layer"]
        [::core::mem::offset_of!(TrellinkOperation, layer) - 12usize];
    ["Offset of field: TrellinkOperation::columns"]
        [::core::mem::offset_of!(TrellinkOperation, columns) - 16usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkReport {
    pub state: u32,
    pub rank: u32,
    pub peer: u32,
    pub epoch: u32,
    pub found: u32,
    pub tile: u32,
    pub waited_ns: u64,
    pub timeout_ns: u64,
    pub operation: TrellinkOperation,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkReport"][::core::mem::size_of::<TrellinkReport>() - 64usize];
    ["Alignment of TrellinkReport"][::core::mem::align_of::<TrellinkReport>() - 8usize];
    ["Offset of field: TrellinkReport::state"]
        [::core::mem::offset_of!(TrellinkReport, state) - 0usize];
    ["Offset of field: TrellinkReport::rank"]
        [::core::mem::offset_of!(TrellinkReport, rank) - 4usize];
    ["Offset of field: TrellinkReport::peer"]
        [::core::mem::offset_of!(TrellinkReport, peer) - 8usize];
    ["Offset of field: TrellinkReport::epoch"]
        [::core::mem::offset_of!(TrellinkReport, epoch) - 12usize];
    ["Offset of field: TrellinkReport::found"]
        [::core::mem::offset_of!(TrellinkReport, found) - 16usize];
    ["Offset of field: TrellinkReport::tile"]
        [::core::mem::offset_of!(TrellinkReport, tile) - 20usize];
    ["Offset of field: TrellinkReport::waited_ns"]
        [::core::mem::offset_of!(TrellinkReport, waited_ns) - 24usize];
    ["Offset of field: TrellinkReport::timeout_ns"]
        [::core::mem::offset_of!(TrellinkReport, timeout_ns) - 32usize];
    ["Offset of field: TrellinkReport::operation"]
        [::core::mem::offset_of!(TrellinkReport, operation) - 40usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkExchange {
    pub arena: [u64; 8usize],
    pub control: u64,
    pub epochs: u64,
    pub report: u64,
    pub abort: u64,
    pub stop: u64,
    pub slot_packets: u64,
    pub rank: u32,
    pub world: u32,
    pub operation: TrellinkOperation,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkExchange"][::core::mem::size_of::<TrellinkExchange>() - 144usize];
    ["Alignment of TrellinkExchange"][::core::mem::align_of::<TrellinkExchange>() - 8usize];
    ["Offset of field: TrellinkExchange::arena"]
        [::core::mem::offset_of!(TrellinkExchange, arena) - 0usize];
    ["Offset of field: TrellinkExchange::control"]
        [::core::mem::offset_of!(TrellinkExchange, control) - 64usize];
    ["Offset of field: TrellinkExchange::epochs"]
        [::core::mem::offset_of!(TrellinkExchange, epochs) - 72usize];
    ["Offset of field: TrellinkExchange::report"]
        [::core::mem::offset_of!(TrellinkExchange, report) - 80usize];
    ["Offset of field: TrellinkExchange::abort"]
        [::core::mem::offset_of!(TrellinkExchange, abort) - 88usize];
    ["Offset of field: TrellinkExchange::stop"]
        [::core::mem::offset_of!(TrellinkExchange, stop) - 96usize];
    ["Offset of field: TrellinkExchange::slot_packets"]
        [::core::mem::offset_of!(TrellinkExchange, slot_packets) - 104usize];
    ["Offset of field: TrellinkExchange::rank"]
        [::core::mem::offset_of!(TrellinkExchange, rank) - 112usize];
    ["Offset of field: TrellinkExchange::world"]
        [::core::mem::offset_of!(TrellinkExchange, world) - 116usize];
    ["Offset of field: TrellinkExchange::operation"]
        [::core::mem::offset_of!(TrellinkExchange, operation) - 120usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkSegment {
    pub blocks: u64,
    pub suh: u64,
    pub svh: u64,
    pub bias: u64,
    pub out: u64,
    pub out_stride: u64,
    pub first_strip: u32,
    pub strips: u32,
    pub codebook: u32,
    pub half_bits: u32,
    pub out_dtype: u32,
    pub epilogue: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkSegment"][::core::mem::size_of::<TrellinkSegment>() - 72usize];
    ["Alignment of TrellinkSegment"][::core::mem::align_of::<TrellinkSegment>() - 8usize];
    ["Offset of field: TrellinkSegment::blocks"]
        [::core::mem::offset_of!(TrellinkSegment, blocks) - 0usize];
    ["Offset of field: TrellinkSegment::suh"]
        [::core::mem::offset_of!(TrellinkSegment, suh) - 8usize];
    ["Offset of field: TrellinkSegment::svh"]
        [::core::mem::offset_of!(TrellinkSegment, svh) - 16usize];
    ["Offset of field: TrellinkSegment::bias"]
        [::core::mem::offset_of!(TrellinkSegment, bias) - 24usize];
    ["Offset of field: TrellinkSegment::out"]
        [::core::mem::offset_of!(TrellinkSegment, out) - 32usize];
    ["Offset of field: TrellinkSegment::out_stride"]
        [::core::mem::offset_of!(TrellinkSegment, out_stride) - 40usize];
    ["Offset of field: TrellinkSegment::first_strip"]
        [::core::mem::offset_of!(TrellinkSegment, first_strip) - 48usize];
    ["Offset of field: TrellinkSegment::strips"]
        [::core::mem::offset_of!(TrellinkSegment, strips) - 52usize];
    ["Offset of field: TrellinkSegment::codebook"]
        [::core::mem::offset_of!(TrellinkSegment, codebook) - 56usize];
    ["Offset of field: TrellinkSegment::half_bits"]
        [::core::mem::offset_of!(TrellinkSegment, half_bits) - 60usize];
    ["Offset of field: TrellinkSegment::out_dtype"]
        [::core::mem::offset_of!(TrellinkSegment, out_dtype) - 64usize];
    ["Offset of field: TrellinkSegment::epilogue"]
        [::core::mem::offset_of!(TrellinkSegment, epilogue) - 68usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkNorm {
    pub out: u64,
    pub weight: u64,
    pub epsilon: f32,
    pub inverse_n: f32,
    pub out_dtype: u32,
    pub weight_dtype: u32,
    pub squares: u64,
    pub square_stride: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkNorm"][::core::mem::size_of::<TrellinkNorm>() - 48usize];
    ["Alignment of TrellinkNorm"][::core::mem::align_of::<TrellinkNorm>() - 8usize];
    ["Offset of field: TrellinkNorm::out"][::core::mem::offset_of!(TrellinkNorm, out) - 0usize];
    ["Offset of field: TrellinkNorm::weight"]
        [::core::mem::offset_of!(TrellinkNorm, weight) - 8usize];
    ["Offset of field: TrellinkNorm::epsilon"]
        [::core::mem::offset_of!(TrellinkNorm, epsilon) - 16usize];
    ["Offset of field: TrellinkNorm::inverse_n"]
        [::core::mem::offset_of!(TrellinkNorm, inverse_n) - 20usize];
    ["Offset of field: TrellinkNorm::out_dtype"]
        [::core::mem::offset_of!(TrellinkNorm, out_dtype) - 24usize];
    ["Offset of field: TrellinkNorm::weight_dtype"]
        [::core::mem::offset_of!(TrellinkNorm, weight_dtype) - 28usize];
    ["Offset of field: TrellinkNorm::squares"]
        [::core::mem::offset_of!(TrellinkNorm, squares) - 32usize];
    ["Offset of field: TrellinkNorm::square_stride"]
        [::core::mem::offset_of!(TrellinkNorm, square_stride) - 40usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkColumns {
    pub squares: u64,
    pub epsilon: f32,
    pub inverse_k: f32,
    pub gated: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkColumns"][::core::mem::size_of::<TrellinkColumns>() - 24usize];
    ["Alignment of TrellinkColumns"][::core::mem::align_of::<TrellinkColumns>() - 8usize];
    ["Offset of field: TrellinkColumns::squares"]
        [::core::mem::offset_of!(TrellinkColumns, squares) - 0usize];
    ["Offset of field: TrellinkColumns::epsilon"]
        [::core::mem::offset_of!(TrellinkColumns, epsilon) - 8usize];
    ["Offset of field: TrellinkColumns::inverse_k"]
        [::core::mem::offset_of!(TrellinkColumns, inverse_k) - 12usize];
    ["Offset of field: TrellinkColumns::gated"]
        [::core::mem::offset_of!(TrellinkColumns, gated) - 16usize];
    ["Offset of field: TrellinkColumns::reserved"]
        [::core::mem::offset_of!(TrellinkColumns, reserved) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkLinear {
    pub x: u64,
    pub x_stride: u64,
    pub x_dtype: u32,
    pub rows: u32,
    pub k_groups: u32,
    pub segments: u32,
    pub first_strip: u32,
    pub strips: u32,
    pub k_splits: u32,
    pub units: u32,
    pub more_units: u32,
    pub whole_groups: u32,
    pub shared_bytes: u32,
    pub warp_bytes: u32,
    pub chunk_groups: u32,
    pub span_log2: u32,
    pub places: u32,
    pub paired_half_bits: u32,
    pub operands: u64,
    pub operand_stride: u64,
    pub norm: TrellinkNorm,
    pub columns: TrellinkColumns,
    pub exchange: TrellinkExchange,
    pub segment: [TrellinkSegment; 8usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkLinear"][::core::mem::size_of::<TrellinkLinear>() - 888usize];
    ["Alignment of TrellinkLinear"][::core::mem::align_of::<TrellinkLinear>() - 8usize];
    ["Offset of field: TrellinkLinear::x"][::core::mem::offset_of!(TrellinkLinear, x) - 0usize];
    ["Offset of field: TrellinkLinear::x_stride"]
        [::core::mem::offset_of!(TrellinkLinear, x_stride) - 8usize];
    ["Offset of field: TrellinkLinear::x_dtype"]
        [::core::mem::offset_of!(TrellinkLinear, x_dtype) - 16usize];
    ["Offset of field: TrellinkLinear::rows"]
        [::core::mem::offset_of!(TrellinkLinear, rows) - 20usize];
    ["Offset of field: TrellinkLinear::k_groups"]
        [::core::mem::offset_of!(TrellinkLinear, k_groups) - 24usize];
    ["Offset of field: TrellinkLinear::segments"]
        [::core::mem::offset_of!(TrellinkLinear, segments) - 28usize];
    ["Offset of field: TrellinkLinear::first_strip"]
        [::core::mem::offset_of!(TrellinkLinear, first_strip) - 32usize];
    ["Offset of field: TrellinkLinear::strips"]
        [::core::mem::offset_of!(TrellinkLinear, strips) - 36usize];
    ["Offset of field: TrellinkLinear::k_splits"]
        [::core::mem::offset_of!(TrellinkLinear, k_splits) - 40usize];
    ["Offset of field: TrellinkLinear::units"]
        [::core::mem::offset_of!(TrellinkLinear, units) - 44usize];
    ["Offset of field: TrellinkLinear::more_units"]
        [::core::mem::offset_of!(TrellinkLinear, more_units) - 48usize];
    ["Offset of field: TrellinkLinear::whole_groups"]
        [::core::mem::offset_of!(TrellinkLinear, whole_groups) - 52usize];
    ["Offset of field: TrellinkLinear::shared_bytes"]
        [::core::mem::offset_of!(TrellinkLinear, shared_bytes) - 56usize];
    ["Offset of field: TrellinkLinear::warp_bytes"]
        [::core::mem::offset_of!(TrellinkLinear, warp_bytes) - 60usize];
    ["Offset of field: TrellinkLinear::chunk_groups"]
        [::core::mem::offset_of!(TrellinkLinear, chunk_groups) - 64usize];
    ["Offset of field: TrellinkLinear::span_log2"]
        [::core::mem::offset_of!(TrellinkLinear, span_log2) - 68usize];
    ["Offset of field: TrellinkLinear::places"]
        [::core::mem::offset_of!(TrellinkLinear, places) - 72usize];
    ["Offset of field: TrellinkLinear::paired_half_bits"]
        [::core::mem::offset_of!(TrellinkLinear, paired_half_bits) - 76usize];
    ["Offset of field: TrellinkLinear::operands"]
        [::core::mem::offset_of!(TrellinkLinear, operands) - 80usize];
    ["Offset of field: TrellinkLinear::operand_stride"]
        [::core::mem::offset_of!(TrellinkLinear, operand_stride) - 88usize];
    ["Offset of field: TrellinkLinear::norm"]
        [::core::mem::offset_of!(TrellinkLinear, norm) - 96usize];
    ["Offset of field: TrellinkLinear::columns"]
        [::core::mem::offset_of!(TrellinkLinear, columns) - 144usize];
    ["Offset of field: TrellinkLinear::exchange"]
        [::core::mem::offset_of!(TrellinkLinear, exchange) - 168usize];
    ["Offset of field: TrellinkLinear::segment"]
        [::core::mem::offset_of!(TrellinkLinear, segment) - 312usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkTransform {
    pub x: u64,
    pub x_stride: u64,
    pub rows: u32,
    pub k_groups: u32,
    pub segments: u32,
    pub reserved: u32,
    pub operands: u64,
    pub operand_stride: u64,
    pub suh: [u64; 8usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkTransform"][::core::mem::size_of::<TrellinkTransform>() - 112usize];
    ["Alignment of TrellinkTransform"][::core::mem::align_of::<TrellinkTransform>() - 8usize];
    ["Offset of field: TrellinkTransform::x"]
        [::core::mem::offset_of!(TrellinkTransform, x) - 0usize];
    ["Offset of field: TrellinkTransform::x_stride"]
        [::core::mem::offset_of!(TrellinkTransform, x_stride) - 8usize];
    ["Offset of field: TrellinkTransform::rows"]
        [::core::mem::offset_of!(TrellinkTransform, rows) - 16usize];
    ["Offset of field: TrellinkTransform::k_groups"]
        [::core::mem::offset_of!(TrellinkTransform, k_groups) - 20usize];
    ["Offset of field: TrellinkTransform::segments"]
        [::core::mem::offset_of!(TrellinkTransform, segments) - 24usize];
    ["Offset of field: TrellinkTransform::reserved"]
        [::core::mem::offset_of!(TrellinkTransform, reserved) - 28usize];
    ["Offset of field: TrellinkTransform::operands"]
        [::core::mem::offset_of!(TrellinkTransform, operands) - 32usize];
    ["Offset of field: TrellinkTransform::operand_stride"]
        [::core::mem::offset_of!(TrellinkTransform, operand_stride) - 40usize];
    ["Offset of field: TrellinkTransform::suh"]
        [::core::mem::offset_of!(TrellinkTransform, suh) - 48usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkAllReduce {
    pub x: u64,
    pub out: u64,
    pub octets: u32,
    pub chunks: u32,
    pub x_dtype: u32,
    pub out_dtype: u32,
    pub epilogue: u32,
    pub form: u32,
    pub exchange: TrellinkExchange,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkAllReduce"][::core::mem::size_of::<TrellinkAllReduce>() - 184usize];
    ["Alignment of TrellinkAllReduce"][::core::mem::align_of::<TrellinkAllReduce>() - 8usize];
    ["Offset of field: TrellinkAllReduce::x"]
        [::core::mem::offset_of!(TrellinkAllReduce, x) - 0usize];
    ["Offset of field: TrellinkAllReduce::out"]
        [::core::mem::offset_of!(TrellinkAllReduce, out) - 8usize];
    ["Offset of field: TrellinkAllReduce::octets"]
        [::core::mem::offset_of!(TrellinkAllReduce, octets) - 16usize];
    ["Offset of field: TrellinkAllReduce::chunks"]
        [::core::mem::offset_of!(TrellinkAllReduce, chunks) - 20usize];
    ["Offset of field: TrellinkAllReduce::x_dtype"]
        [::core::mem::offset_of!(TrellinkAllReduce, x_dtype) - 24usize];
    ["Offset of field: TrellinkAllReduce::out_dtype"]
        [::core::mem::offset_of!(TrellinkAllReduce, out_dtype) - 28usize];
    ["Offset of field: TrellinkAllReduce::epilogue"]
        [::core::mem::offset_of!(TrellinkAllReduce, epilogue) - 32usize];
    ["Offset of field: TrellinkAllReduce::form"]
        [::core::mem::offset_of!(TrellinkAllReduce, form) - 36usize];
    ["Offset of field: TrellinkAllReduce::exchange"]
        [::core::mem::offset_of!(TrellinkAllReduce, exchange) - 40usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkLinkVerdict {
    pub state: u32,
    pub round: u32,
    pub word: u32,
    pub reserved: u32,
    pub expected: u64,
    pub found: u64,
    pub elapsed_ns: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkLinkVerdict"][::core::mem::size_of::<TrellinkLinkVerdict>() - 40usize];
    ["Alignment of TrellinkLinkVerdict"][::core::mem::align_of::<TrellinkLinkVerdict>() - 8usize];
    ["Offset of field: TrellinkLinkVerdict::state"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, state) - 0usize];
    ["Offset of field: TrellinkLinkVerdict::round"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, round) - 4usize];
    ["Offset of field: TrellinkLinkVerdict::word"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, word) - 8usize];
    ["Offset of field: TrellinkLinkVerdict::reserved"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, reserved) - 12usize];
    ["Offset of field: TrellinkLinkVerdict::expected"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, expected) - 16usize];
    ["Offset of field: TrellinkLinkVerdict::found"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, found) - 24usize];
    ["Offset of field: TrellinkLinkVerdict::elapsed_ns"]
        [::core::mem::offset_of!(TrellinkLinkVerdict, elapsed_ns) - 32usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkLinkProbe {
    pub own: u64,
    pub peer: u64,
    pub verdict: u64,
    pub timeout_ns: u64,
    pub first_tag: u32,
    pub rounds: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkLinkProbe"][::core::mem::size_of::<TrellinkLinkProbe>() - 40usize];
    ["Alignment of TrellinkLinkProbe"][::core::mem::align_of::<TrellinkLinkProbe>() - 8usize];
    ["Offset of field: TrellinkLinkProbe::own"]
        [::core::mem::offset_of!(TrellinkLinkProbe, own) - 0usize];
    ["Offset of field: TrellinkLinkProbe::peer"]
        [::core::mem::offset_of!(TrellinkLinkProbe, peer) - 8usize];
    ["Offset of field: TrellinkLinkProbe::verdict"]
        [::core::mem::offset_of!(TrellinkLinkProbe, verdict) - 16usize];
    ["Offset of field: TrellinkLinkProbe::timeout_ns"]
        [::core::mem::offset_of!(TrellinkLinkProbe, timeout_ns) - 24usize];
    ["Offset of field: TrellinkLinkProbe::first_tag"]
        [::core::mem::offset_of!(TrellinkLinkProbe, first_tag) - 32usize];
    ["Offset of field: TrellinkLinkProbe::rounds"]
        [::core::mem::offset_of!(TrellinkLinkProbe, rounds) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkDecode {
    pub blocks: u64,
    pub out: u64,
    pub strips: u32,
    pub k_groups: u32,
    pub codebook: u32,
    pub half_bits: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkDecode"][::core::mem::size_of::<TrellinkDecode>() - 32usize];
    ["Alignment of TrellinkDecode"][::core::mem::align_of::<TrellinkDecode>() - 8usize];
    ["Offset of field: TrellinkDecode::blocks"]
        [::core::mem::offset_of!(TrellinkDecode, blocks) - 0usize];
    ["Offset of field: TrellinkDecode::out"][::core::mem::offset_of!(TrellinkDecode, out) - 8usize];
    ["Offset of field: TrellinkDecode::strips"]
        [::core::mem::offset_of!(TrellinkDecode, strips) - 16usize];
    ["Offset of field: TrellinkDecode::k_groups"]
        [::core::mem::offset_of!(TrellinkDecode, k_groups) - 20usize];
    ["Offset of field: TrellinkDecode::codebook"]
        [::core::mem::offset_of!(TrellinkDecode, codebook) - 24usize];
    ["Offset of field: TrellinkDecode::half_bits"]
        [::core::mem::offset_of!(TrellinkDecode, half_bits) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct TrellinkStream {
    pub source: u64,
    pub chunks: u64,
    pub sum: u64,
    pub mask: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of TrellinkStream"][::core::mem::size_of::<TrellinkStream>() - 32usize];
    ["Alignment of TrellinkStream"][::core::mem::align_of::<TrellinkStream>() - 8usize];
    ["Offset of field: TrellinkStream::source"]
        [::core::mem::offset_of!(TrellinkStream, source) - 0usize];
    ["Offset of field: TrellinkStream::chunks"]
        [::core::mem::offset_of!(TrellinkStream, chunks) - 8usize];
    ["Offset of field: TrellinkStream::sum"]
        [::core::mem::offset_of!(TrellinkStream, sum) - 16usize];
    ["Offset of field: TrellinkStream::mask"]
        [::core::mem::offset_of!(TrellinkStream, mask) - 24usize];
    ["Offset of field: TrellinkStream::reserved"]
        [::core::mem::offset_of!(TrellinkStream, reserved) - 28usize];
};
