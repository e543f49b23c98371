// The input side of the layer: (x * suh) H, as fp16 MMA operands in shared memory.
//
// Each 128-channel group of a token is scaled by a power of two so that its greatest magnitude lies
// in [2^14, 2^15): fp16 then neither overflows nor loses small inputs to subnormals, whatever the
// activations' range. The inverse, exact, is applied to the group's sums in f32.
#pragma once

#include "format/hadamard.cuh"
#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// Four neighbouring activations as f32.
__device__ __forceinline__ void unpack4(uint2 packed, uint32_t dtype, float (&v)[4]) {
  const uint32_t words[2] = {packed.x, packed.y};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t half = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffffu;
    v[i] = dtype == TRELLINK_DTYPE_F16 ? ptx::f16_to_f32(half) : __uint_as_float(half << 16);
  }
}

// The power of two that brings `magnitude` (bits of a finite, non-negative f32) into [2^14, 2^15), as
// f32 bits; 1 for a group of zeros, and for infinities and NaN, which pass through.
__device__ __forceinline__ uint32_t group_scale_bits(uint32_t magnitude) {
  const uint32_t exponent = magnitude >> 23;
  const bool plain = exponent == 0 || exponent == 255;
  // Exponent field of 2^(14 - (exponent - 127)), kept where its inverse is a normal number.
  const uint32_t field = plain ? 127u : min(268u - exponent, 253u);
  return field << 23;
}

// Loads group `group` of one row, transforms it and writes it as group `slot` of the shared input.
template <class Layout>
__device__ __forceinline__ void transform_group(const Layout& shared, float (&v)[4], uint32_t slot,
                                                uint32_t token, uint32_t lane) {
  hadamard_128(v, lane);
  uint32_t magnitude = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = __fmul_rn(v[i], kHadamardScale);
    magnitude = max(magnitude, __float_as_uint(v[i]) & 0x7fffffffu);
  }
  const uint32_t scale_bits = group_scale_bits(ptx::redux_max(magnitude));
  const float scale = __uint_as_float(scale_bits);
  if (lane == 0) *shared.scale(slot, token) = __uint_as_float((254u << 23) - scale_bits);

  // Channels 4l .. 4l+3 of the group: two half2 of neighbouring quads in tile l / 4.
  const uint32_t tile = lane / 4;
  const uint32_t in_tile = lane % 4 * 4;
  const uint32_t quad = in_tile % 8 / 2;
  auto* first = reinterpret_cast<uint32_t*>(shared.input(slot, tile, token, quad)) + in_tile / 8;
  first[0] = ptx::pack_f16x2(__fmul_rn(v[0], scale), __fmul_rn(v[1], scale));
  first[4] = ptx::pack_f16x2(__fmul_rn(v[2], scale), __fmul_rn(v[3], scale));
}

// Fills the shared input with groups [first_group, first_group + groups) of tokens
// [first_token, first_token + shared.tokens). By all warps of the CTA; the caller synchronises.
template <class Layout>
__device__ __forceinline__ void load_input(const TrellinkLinear& params, const TrellinkSegment& segment,
                                           const Layout& shared, uint32_t first_token, uint32_t first_group,
                                           uint32_t groups) {
  constexpr uint32_t kBatch = 4;  // loads in flight
  const uint32_t warp = ptx::warp_index(), lane = threadIdx.x % 32;
  const auto* x = reinterpret_cast<const uint16_t*>(params.x);
  const auto* suh = reinterpret_cast<const uint16_t*>(segment.suh);
  const uint32_t items = shared.tokens * groups;
  for (uint32_t first = warp; first < items; first += kWarps * kBatch) {
    uint2 raw[kBatch], scales[kBatch];
#pragma unroll
    for (uint32_t b = 0; b < kBatch; ++b) {
      const uint32_t item = first + b * kWarps;
      if (item < items) {
        const uint32_t channel = (first_group + item % groups) * kGroup + 4 * lane;
        const uint64_t row = first_token + item / groups;
        raw[b] = *reinterpret_cast<const uint2*>(x + row * params.x_stride + channel);
        scales[b] = *reinterpret_cast<const uint2*>(suh + channel);
      }
    }
#pragma unroll
    for (uint32_t b = 0; b < kBatch; ++b) {
      const uint32_t item = first + b * kWarps;
      if (item < items) {
        float v[4], s[4];
        unpack4(raw[b], params.x_dtype, v);
        unpack4(scales[b], TRELLINK_DTYPE_F16, s);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], s[i]);
        transform_group(shared, v, item % groups, item / groups, lane);
      }
    }
  }
}

}  // namespace trellink
