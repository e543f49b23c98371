// How the arithmetics on fp16 inputs scale a group, and f32 accumulators for many tokens.
#pragma once

#include "linear/input.cuh"
#include "linear/shared_layout.cuh"
#include "linear/straight.cuh"

namespace trellink {

// The power of two, as f32 bits, that brings a magnitude (as f32 bits) into [2^14, 2^15): fp16 then
// neither overflows nor loses small inputs to subnormals, whatever the range of the activations.
// 1 for zeros, and for infinities and NaN, which pass through.
__device__ __forceinline__ uint32_t power_of_two_scale(uint32_t magnitude) {
  const uint32_t exponent = magnitude >> 23;
  const bool plain = exponent == 0 || exponent == 255;
  // Exponent field of 2^(14 - (exponent - 127)), kept where its inverse is a normal number.
  return (plain ? 127u : min(268u - exponent, 253u)) << 23;
}

// The inverse of a power of two, both as f32 bits.
__device__ __forceinline__ uint32_t inverse_power_of_two(uint32_t bits) { return (254u << 23) - bits; }

// kBlocks MMA results of 16 channels and 8 tokens each. Shared memory has places for all these tokens.
template <int kBlocks>
struct FloatSums : NotStraight {
  struct Accumulator {
    float v[kBlocks][4] = {};
  };
  using Scale = float;

  // acc += part of group `group`, its scaling undone.
  template <class Shared>
  static __device__ __forceinline__ void add_group(const Shared& shared, uint32_t group, uint32_t lane,
                                                   const float (&part)[kBlocks][4], Accumulator& acc) {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      // Columns without a token take whatever is there.
      const uint32_t token = n * kMmaColumns + lane % kQuads * 2;
      const float2 scale = *reinterpret_cast<const float2*>(shared.scale(group, token));
#pragma unroll
      for (int i = 0; i < 4; ++i) acc.v[n][i] = __fmaf_rn(i % 2 ? scale.y : scale.x, part[n][i], acc.v[n][i]);
    }
  }

  // Writes this warp's result of its strip'th strip to its place in the shared sums.
  template <class Shared>
  static __device__ __forceinline__ void store_sums(const Shared& shared, uint32_t strip, uint32_t lane,
                                                    const Accumulator& acc) {
    const uint32_t warp = ptx::warp_index();
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      const uint32_t token = n * kMmaColumns + lane % kQuads * 2;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        *shared.sum(warp, strip, token + i % 2, lane / kQuads + i / 2 * 8) = acc.v[n][i];
      }
    }
  }
};

}  // namespace trellink
