// The 128-point Walsh-Hadamard transform over a warp, Sylvester order, not scaled.
#pragma once

#include "format/block.h"

namespace trellink {

// Scale that makes the transform orthonormal: 1/sqrt(128).
constexpr float kHadamardScale = 0.08838834764831845f;

// Lane l holds channels 4l .. 4l+3 before and after. The additions are explicitly rounded, so that
// every architecture computes the same bits.
__device__ __forceinline__ void hadamard_128(float (&v)[4], uint32_t lane) {
  const float a = __fadd_rn(v[0], v[1]), b = __fsub_rn(v[0], v[1]);
  const float c = __fadd_rn(v[2], v[3]), d = __fsub_rn(v[2], v[3]);
  v[0] = __fadd_rn(a, c);
  v[1] = __fadd_rn(b, d);
  v[2] = __fsub_rn(a, c);
  v[3] = __fsub_rn(b, d);
#pragma unroll
  for (uint32_t mask = 1; mask < kLanes; mask *= 2) {
    const float sign = (lane & mask) ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float other = __shfl_xor_sync(0xffffffffu, v[i], mask);
      v[i] = __fmaf_rn(sign, v[i], other);
    }
  }
}

}  // namespace trellink
