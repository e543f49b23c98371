// The output side of the layer: sum over ranks, transform, svh, bias, epilogue, one rounding.
#pragma once

#include "comm/exchange.cuh"
#include "format/hadamard.cuh"
#include "linear/finish_items.cuh"
#include "linear/input.cuh"
#include "linear/norm.cuh"

namespace trellink {

// What finishes four neighbouring columns of a row besides their sum. Loaded before the sum arrives.
class Finish {
 public:
  // Columns 4l .. 4l+3 of the 128 that begin with `strip`, l being the lane.
  __device__ Finish(const TrellinkLinear& params, uint32_t strip, uint32_t row, uint32_t lane)
      : segment_(segment_of(params, strip)) {
    const uint32_t column = (strip - segment_.first_strip) * kTile + 4 * lane;
    element_ = row * segment_.out_stride + column;
    svh_ = *reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(segment_.svh) + column);
    if (segment_.bias) {
      bias_ = *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(segment_.bias) + column);
    }
    if (segment_.epilogue != TRELLINK_EPILOGUE_ADD) return;
    if (segment_.out_dtype == TRELLINK_DTYPE_F32) {
      before_ = *reinterpret_cast<const uint4*>(reinterpret_cast<const float*>(segment_.out) + element_);
    } else {
      const uint2 half = *reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(segment_.out) + element_);
      before_ = {half.x, half.y, 0, 0};
    }
  }

  // The output transform of sums, times `scale`, svh and bias. `scale` includes the transform's.
  __device__ void transform(float (&v)[4], uint32_t lane, float scale = kHadamardScale) const {
    hadamard_128(v, lane);
    float svh[4];
    unpack4(svh_, TRELLINK_DTYPE_F16, svh);
    const float bias[4] = {bias_.x, bias_.y, bias_.z, bias_.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmaf_rn(__fmul_rn(v[i], scale), svh[i], bias[i]);
  }

  // The epilogue, in f32, and one rounding.
  __device__ void store(float (&v)[4]) const {
    if (segment_.epilogue == TRELLINK_EPILOGUE_ADD) add_before(v);
    if (segment_.out_dtype == TRELLINK_DTYPE_F32) {
      *reinterpret_cast<float4*>(reinterpret_cast<float*>(segment_.out) + element_) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(segment_.out) + element_) = pack4(v, segment_.out_dtype);
    }
  }

 private:
  static __device__ const TrellinkSegment& segment_of(const TrellinkLinear& params, uint32_t strip) {
    uint32_t s = 0;
    while (s + 1 < params.segments && strip >= params.segment[s + 1].first_strip) ++s;
    return params.segment[s];
  }

  __device__ void add_before(float (&v)[4]) const {
    float before[4];
    if (segment_.out_dtype == TRELLINK_DTYPE_F32) {
      const uint32_t bits[4] = {before_.x, before_.y, before_.z, before_.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) before[i] = __uint_as_float(bits[i]);
    } else {
      unpack4(make_uint2(before_.x, before_.y), segment_.out_dtype, before);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fadd_rn(v[i], before[i]);
  }

  const TrellinkSegment& segment_;
  uint64_t element_;
  uint2 svh_;
  float4 bias_ = {0, 0, 0, 0};
  uint4 before_ = {0, 0, 0, 0};  // what the output held, if it is added to
};

// Finishes the items of this warp, whose own sums `kept` has where they stay with the cluster. kNorm: and what
// TrellinkNorm says.
template <bool kNorm, class Kept>
__device__ __forceinline__ void finish_rows(const TrellinkLinear& params, const Exchange& exchange,
                                            const FinishItems& items, const Kept& kept) {
  const uint32_t lane = ptx::opaque(threadIdx.x) % kLanes;
  Exchange::Wait wait;
  bool late = false;
#pragma unroll 1
  for (FinishItems item = items; item.more();) {
    const uint32_t row = item.row(), group = item.group();
    const Finish finish(params, params.first_strip + group * FinishItems::kGroupStrips, row, lane);
    if constexpr (kNorm) {
      if (params.norm.out) prefetch_weight(params.norm, group, lane);
    }
    float v[4] = {0, 0, 0, 0};
    const bool keeps_own = params.whole_groups;
    if (keeps_own) kept.load(row, group, lane, v);
    // A failed call's outputs are void.
    if (late && !__all_sync(0xffffffffu, exchange.wait_longer(item.place(), lane, keeps_own, wait))) return;
    late = !exchange.look(item.place(), lane, keeps_own, v);
    if (late) continue;
    finish.transform(v, lane);
    finish.store(v);
    if constexpr (kNorm) leave_squares(params, exchange, item.place(), v, lane);
    item.next();
    wait = {};
  }
  if constexpr (kNorm) {
    if (params.norm.out) normalise_rows(params, exchange, items);
  }
}

}  // namespace trellink
