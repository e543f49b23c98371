// The input side of the layer: (x * suh) H, as the arithmetic's MMA operands in shared memory.
//
// Each 128-channel group of a token is scaled by itself, so that operands of few bits serve whatever
// range the activations have; what undoes the scaling is applied to the group's sums.
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

// Transforms a group of one token, 4 channels a lane, and writes it as group `slot` of the shared input.
template <class Arithmetic>
__device__ __forceinline__ void transform_group(const SharedLayout<Arithmetic>& shared, float (&v)[4], uint32_t slot,
                                                uint32_t token, uint32_t lane) {
  hadamard_128(v, lane);
  uint32_t magnitude = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = __fmul_rn(v[i], kHadamardScale);
    // Magnitudes of floats are ordered as their bits are, NaN last.
    magnitude = max(magnitude, __float_as_uint(v[i]) & 0x7fffffffu);
  }
  Arithmetic::store_group(shared, v, ptx::redux_max(magnitude), slot, token, lane);
}

// Fills the shared input with groups [first_group, first_group + groups) of tokens
// [first_token, first_token + shared.tokens). By all warps of the CTA; the caller synchronises.
template <class Arithmetic>
__device__ __forceinline__ void load_input(const TrellinkLinear& params, const TrellinkSegment& segment,
                                           const SharedLayout<Arithmetic>& shared, uint32_t first_token, uint32_t first_group,
                                           uint32_t groups) {
  // Loads in flight. Before Hopper the code takes more registers here, and four would spill.
#if __CUDA_ARCH__ >= 900
  constexpr uint32_t kBatch = 4;
#else
  constexpr uint32_t kBatch = 2;
#endif
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
