// The RMSNorm of finished rows, or what it takes. out = round((y * weight) / sqrt(mean(y^2) + epsilon)), y as it was stored.
//
// A row is finished by many CTAs. Each warp posts the sum of squares of its 128 columns; then the warps go over their
// items once more, wait for the posts of the item's row and add them up. Nobody waits before he has posted all of his, so
// the waits end. The order of additions is that of the columns, whoever adds, so all ranks get the same bits.
//
// The warp's last item, most often its only one, is in registers yet. For others a lane reads back from the output what
// it has stored itself: that needs no fence, and takes no registers while other items are finished.
//
// Or nobody waits: each warp stores its sum of squares, and the launch that reads the rows normalises
// (columns.cuh).
#pragma once

#include "comm/exchange.cuh"
#include "format/hadamard.cuh"
#include "linear/finish_items.cuh"
#include "linear/input.cuh"

namespace trellink {

// The sum of a value of each lane, the same bits in all of them.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (uint32_t mask = 1; mask < kLanes; mask *= 2) x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

// The norm of an item, of which a lane has four neighbouring columns of a row. Nothing of it is kept from one step to the
// next: beside more than 96 registers a thread there is no room for the transform of bf16 inputs that is launched ahead of
// the next call.
class RowNorm {
 public:
  __device__ RowNorm(const TrellinkLinear& params, const Exchange& exchange, const FinishItems& item, uint32_t lane)
      : params_(params), norm_(params.norm), exchange_(exchange), item_(item), lane_(lane) {}

  // Brings the weight near, which comes from memory, while the item's sums are awaited.
  __device__ void prefetch_weight() const {
    if (!norm_.out) return;
    const uint64_t bytes = norm_.weight_dtype == TRELLINK_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    ptx::prefetch_l2(reinterpret_cast<const void*>(norm_.weight + column() * bytes));
  }

  // Posts or stores the sum of the squares of the item, whose values v are as they were stored.
  __device__ void leave_squares(const float (&v)[4]) const {
    float sum = __fmul_rn(v[0], v[0]);
#pragma unroll
    for (int i = 1; i < 4; ++i) sum = __fmaf_rn(v[i], v[i], sum);
    sum = warp_sum(sum);
    if (norm_.out && lane_ < SumLayout::kPostCopies) {
      exchange_.post(posts(lane_) + SumLayout::post(item_.place()), __float_as_uint(sum));
    }
    if (norm_.squares && lane_ == 0) {
      constexpr uint32_t kGroupStrips = kGroup / kTile;
      const uint64_t place = item_.row() * norm_.square_stride + params_.first_strip / kGroupStrips + item_.group();
      reinterpret_cast<float*>(norm_.squares)[place] = sum;
    }
  }

  // Multiplies the item's values by the weight.
  __device__ void apply_weight(float (&v)[4]) const {
    float weight[4];
    Raw4::load(norm_.weight, column(), norm_.weight_dtype).unpack(norm_.weight_dtype, weight);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], weight[i]);
  }

  // Looks for the sum of the squares of the item's row, the same in all lanes: a lane adds every 32nd item, then the lanes
  // are added. False if not all of it has come.
  __device__ bool look(float& sum) const {
    constexpr uint32_t kBatch = 2;  // polled together: as many as lanes have in rows of 8192
    const uint64_t* row = posts(item_.group()) + SumLayout::post(item_.row() * item_.groups());
    sum = 0;
#pragma unroll 1
    for (uint32_t group = lane_; group - lane_ < item_.groups(); group += kBatch * kLanes) {
      uint32_t squares[kBatch];
      if (!exchange_.look_for_posts(row, group, kLanes, item_.groups(), squares)) return false;
#pragma unroll
      for (uint32_t b = 0; b < kBatch; ++b) sum = __fadd_rn(sum, __uint_as_float(squares[b]));
    }
    sum = warp_sum(sum);
    return true;
  }

  // Normalises the item, of which v are the values times the weight, by the sum of the squares of its row.
  __device__ void store(float squares, float (&v)[4]) const {
    const float scale = __frsqrt_rn(__fmaf_rn(squares, norm_.inverse_n, norm_.epsilon));
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], scale);
    *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(norm_.out) + element()) = pack4(v, norm_.out_dtype);
  }

  // Reads back what this lane has stored of the item.
  __device__ void read_back(float (&v)[4]) const {
    const TrellinkSegment& segment = params_.segment[0];
    Raw4::load(segment.out, element(), segment.out_dtype).unpack(segment.out_dtype, v);
  }

 private:
  // The first of the lane's columns.
  __device__ uint32_t column() const { return item_.group() * kGroup + 4 * lane_; }
  __device__ uint64_t element() const { return item_.row() * params_.segment[0].out_stride + column(); }
  // The first post of a copy.
  __device__ uint64_t* posts(uint32_t copy) const { return exchange_.posts(params_.rows * item_.groups(), copy); }

  const TrellinkLinear& params_;
  const TrellinkNorm& norm_;
  const Exchange& exchange_;
  const FinishItems& item_;
  const uint32_t lane_;
};

}  // namespace trellink
