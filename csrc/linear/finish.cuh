// The output side of the layer: sum over ranks, transform, svh, bias, epilogue, one rounding.
#pragma once

#include "comm/exchange.cuh"
#include "format/hadamard.cuh"
#include "linear/finish_items.cuh"
#include "linear/input.cuh"
#include "linear/norm.cuh"

namespace trellink {

// What finishes four neighbouring columns of a row besides their sum. Loaded before the sum arrives. kOneSegment: the launch
// has no other.
template <bool kOneSegment>
class Finish {
 public:
  // Columns 4l .. 4l+3 of the 128 that begin with `strip`, l being the lane.
  __device__ Finish(const TrellinkLinear& params, uint32_t strip, uint32_t row, uint32_t lane)
      : segment_(kOneSegment ? params.segment[0] : segment_of(params, strip)) {
    const uint32_t column = (strip - segment_.first_strip) * kTile + 4 * lane;
    element_ = row * segment_.out_stride + column;
    svh_ = *reinterpret_cast<const uint2*>(reinterpret_cast<const uint16_t*>(segment_.svh) + column);
    if (segment_.bias) {
      bias_ = *reinterpret_cast<const float4*>(reinterpret_cast<const float*>(segment_.bias) + column);
    }
    // -0, which is added to any value without changing it.
    const uint32_t zeros = segment_.out_dtype == TRELLINK_DTYPE_F32 ? 0x80000000u : 0x80008000u;
    before_ = {make_uint2(zeros, zeros), make_uint2(zeros, zeros)};
    if (segment_.epilogue == TRELLINK_EPILOGUE_ADD) before_ = Raw4::load(segment_.out, element_, segment_.out_dtype);
  }

  // The output transform of sums, times `scale`, svh and bias. `scale` includes the transform's.
  __device__ void transform(float (&v)[4], uint32_t lane, float scale = kHadamardScale) const {
    HadamardLane(lane).transform(v);
    float svh[4];
    unpack4(svh_, TRELLINK_DTYPE_F16, svh);
    const float bias[4] = {bias_.x, bias_.y, bias_.z, bias_.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmaf_rn(__fmul_rn(v[i], scale), svh[i], bias[i]);
  }

  // The epilogue, in f32, and one rounding: v becomes what is stored.
  __device__ void store(float (&v)[4]) const {
    float before[4];
    before_.unpack(segment_.out_dtype, before);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fadd_rn(v[i], before[i]);
    if (segment_.out_dtype == TRELLINK_DTYPE_F32) {
      *reinterpret_cast<float4*>(reinterpret_cast<float*>(segment_.out) + element_) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
      const uint2 packed = pack4(v, segment_.out_dtype);
      *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(segment_.out) + element_) = packed;
      unpack4(packed, segment_.out_dtype, v);
    }
  }

 private:
  static __device__ const TrellinkSegment& segment_of(const TrellinkLinear& params, uint32_t strip) {
    uint32_t s = 0;
    while (s + 1 < params.segments && strip >= params.segment[s + 1].first_strip) ++s;
    return params.segment[s];
  }

  const TrellinkSegment& segment_;
  uint64_t element_;
  uint2 svh_;
  Raw4 before_;  // what the output held, if it is added to
  float4 bias_ = {0, 0, 0, 0};
};

// Finishes the items of this warp, whose own sums `kept` has where they stay with the cluster. kNorm: and what
// TrellinkNorm says. What a wait that lasts takes stands in front of both looks: what is rarely done shall not lie behind
// them.
template <bool kNorm, bool kOneSegment, class Kept>
__device__ __forceinline__ void finish_rows(const TrellinkLinear& params, const Exchange& exchange,
                                            const FinishItems& items, const Kept& kept) {
  const uint32_t lane = ptx::opaque(threadIdx.x) % kLanes;
  const bool keeps_own = params.whole_groups;
  FinishItems item = items;
  [[maybe_unused]] const RowNorm norm(params, exchange, item, lane);
  float v[4] = {0, 0, 0, 0};
  Exchange::Wait wait;
  bool late = false, all_posted = false;
#pragma unroll 1
  while (item.more()) {
    if (late) {
      const bool goes_on = all_posted ? exchange.wait_longer_for_posts(item.place(), wait)
                                      : exchange.wait_longer(item.place(), lane, keeps_own, wait);
      // A failed call's outputs are void.
      if (!__all_sync(0xffffffffu, goes_on)) return;
    }
    if (!all_posted) {
      const Finish<kOneSegment> finish(params, params.first_strip + item.group() * FinishItems::kGroupStrips, item.row(), lane);
      if constexpr (kNorm) norm.prefetch_weight();
      if (keeps_own) kept.load(item.row(), item.group(), lane, v);
      late = !exchange.look(item.place(), lane, keeps_own, v);
      if (late) continue;
      finish.transform(v, lane);
      finish.store(v);
      wait = {};
      if constexpr (kNorm) {
        norm.leave_squares(v);
        all_posted = item.is_last();
      }
      if (!all_posted) {
        item.next();
        continue;
      }
      if (!params.norm.out) return;
      if constexpr (kNorm) norm.apply_weight(v);
    }
    // The last item first, which is in registers, then the others.
    if constexpr (kNorm) {
      float squares;
      late = !norm.look(squares);
      if (late) continue;
      norm.store(squares, v);
      if (item.is_first()) return;
      item.previous();
      norm.read_back(v);
      norm.apply_weight(v);
      wait = {};
    }
  }
}

}  // namespace trellink
