// The 128-point Walsh-Hadamard transform over a warp, Sylvester order, not scaled.
#pragma once

#include "format/block.h"
#include "ptx/ptx.cuh"

namespace trellink {

// Scale that makes the transform orthonormal: 1/sqrt(128).
constexpr float kHadamardScale = 0.08838834764831845f;

// A lane's part of it: lane l holds channels 4l .. 4l+3 before and after. The additions are explicitly rounded, so that
// every architecture computes the same bits.
class HadamardLane {
 public:
  __device__ __forceinline__ explicit HadamardLane(uint32_t lane) {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) sign_[i] = (lane >> i & 1) ? -1.0f : 1.0f;
  }

  // Keeps the signs in registers, for several transforms.
  __device__ __forceinline__ void keep() {
#pragma unroll
    for (int i = 0; i < kRounds; ++i) sign_[i] = __uint_as_float(ptx::opaque(__float_as_uint(sign_[i])));
  }

  __device__ __forceinline__ void transform(float (&v)[4]) const {
    const float a = __fadd_rn(v[0], v[1]), b = __fsub_rn(v[0], v[1]);
    const float c = __fadd_rn(v[2], v[3]), d = __fsub_rn(v[2], v[3]);
    v[0] = __fadd_rn(a, c);
    v[1] = __fadd_rn(b, d);
    v[2] = __fsub_rn(a, c);
    v[3] = __fsub_rn(b, d);
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float other = __shfl_xor_sync(0xffffffffu, v[i], 1 << round);
        v[i] = __fmaf_rn(sign_[round], v[i], other);
      }
    }
  }

 private:
  static constexpr int kRounds = 5;
  float sign_[kRounds];
};

}  // namespace trellink
