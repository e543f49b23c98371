// The output side of the layer: sum over ranks, transform, svh, bias, epilogue, one rounding.
#pragma once

#include "comm/exchange.cuh"
#include "format/hadamard.cuh"
#include "linear/input.cuh"

namespace trellink {

// Four neighbouring outputs at `out`, rounded to the output type; with the ADD epilogue onto what
// is there, added in f32 before the rounding.
__device__ __forceinline__ void store4(const TrellinkSegment& segment, uint64_t element, float (&v)[4]) {
  const bool add = segment.epilogue == TRELLINK_EPILOGUE_ADD;
  if (segment.out_dtype == TRELLINK_DTYPE_F32) {
    auto* out = reinterpret_cast<float4*>(reinterpret_cast<float*>(segment.out) + element);
    if (add) {
      const float4 r = *out;
      v[0] = __fadd_rn(v[0], r.x);
      v[1] = __fadd_rn(v[1], r.y);
      v[2] = __fadd_rn(v[2], r.z);
      v[3] = __fadd_rn(v[3], r.w);
    }
    *out = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
  auto* out = reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(segment.out) + element);
  if (add) {
    float r[4];
    unpack4(*out, segment.out_dtype, r);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fadd_rn(v[i], r[i]);
  }
  *out = segment.out_dtype == TRELLINK_DTYPE_F16
             ? make_uint2(ptx::pack_f16x2(v[0], v[1]), ptx::pack_f16x2(v[2], v[3]))
             : make_uint2(ptx::pack_bf16x2(v[0], v[1]), ptx::pack_bf16x2(v[2], v[3]));
}

// Finishes the 128 columns that begin with `strip`, of one row. Lane l holds the sums of columns 4l .. 4l+3.
__device__ __forceinline__ void finish_group(const TrellinkLinear& params, uint32_t strip, uint32_t row,
                                             uint32_t lane, float (&v)[4]) {
  uint32_t s = 0;
  while (s + 1 < params.segments && strip >= params.segment[s + 1].first_strip) ++s;
  const TrellinkSegment& segment = params.segment[s];
  const uint32_t column = (strip - segment.first_strip) * kTile + 4 * lane;

  hadamard_128(v, lane);
  float svh[4];
  unpack4(*reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(segment.svh) + column),
          TRELLINK_DTYPE_F16, svh);
  float4 bias = make_float4(0, 0, 0, 0);
  if (segment.bias) bias = *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(segment.bias) + column);
  const float b[4] = {bias.x, bias.y, bias.z, bias.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = __fmaf_rn(__fmul_rn(v[i], kHadamardScale), svh[i], b[i]);
  store4(segment, row * segment.out_stride + column, v);
}

// Finishes every (row, 128 columns) item of this CTA: one warp an item.
__device__ __forceinline__ void finish_rows(const TrellinkLinear& params, const Exchange& exchange) {
  constexpr uint32_t kGroupStrips = kGroup / kTile;
  const uint32_t warp = ptx::warp_index(), lane = threadIdx.x % 32;
  const uint32_t groups = params.strips / kGroupStrips;
  const uint32_t items = params.rows * groups;
  // Neighbouring items go to different CTAs: all SMs poll, none for long.
  for (uint32_t item = blockIdx.x + gridDim.x * warp; item < items; item += gridDim.x * kWarps) {
    const uint32_t row = item / groups, group = item % groups;
    float v[4];
    const bool arrived =
        exchange.collect(static_cast<uint64_t>(item) * kGroup + 4 * lane, v);
    // A transform needs its whole warp; a failed call's outputs are void anyway.
    if (!__all_sync(0xffffffffu, arrived)) return;
    finish_group(params, params.first_strip + group * kGroupStrips, row, lane, v);
  }
}

}  // namespace trellink
