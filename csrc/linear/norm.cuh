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

// The norm of an item, of which a lane has four neighbouring columns of a row.
class RowNorm {
 public:
  RowNorm() = default;
  // What can be done before the item's values are there, in few registers: the weight, which comes from memory, is brought
  // near.
  __device__ RowNorm(const TrellinkLinear& params, const Exchange& exchange, const FinishItems& item, uint32_t lane) {
    const TrellinkNorm& norm = params.norm;
    if (!norm.out) return;
    const uint64_t bytes = norm.weight_dtype == TRELLINK_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    ptx::prefetch_l2(reinterpret_cast<const void*>(norm.weight + column(item, lane) * bytes));
    own_post_ = ptx::opaque(exchange.posts(params.rows * item.groups()).copy(lane) + SumLayout::post(item.place()));
  }

  // Posts or stores the sum of the squares of the item, whose values v are as they were stored.
  __device__ void leave_squares(const TrellinkLinear& params, const Exchange& exchange, const FinishItems& item,
                                const float (&v)[4], uint32_t lane) const {
    float sum = __fmul_rn(v[0], v[0]);
#pragma unroll
    for (int i = 1; i < 4; ++i) sum = __fmaf_rn(v[i], v[i], sum);
    sum = warp_sum(sum);
    const TrellinkNorm& norm = params.norm;
    if (norm.out && lane < Exchange::Posts::kCopies) exchange.post(own_post_, __float_as_uint(sum));
    if (norm.squares && lane == 0) {
      constexpr uint32_t kGroupStrips = kGroup / kTile;
      const uint64_t place = item.row() * norm.square_stride + params.first_strip / kGroupStrips + item.group();
      reinterpret_cast<float*>(norm.squares)[place] = sum;
    }
  }

  // Begins to wait for the sum of the squares of the item's row, and multiplies the values by the weight.
  __device__ void begin(const TrellinkLinear& params, const Exchange& exchange, const FinishItems& item, uint32_t lane,
                        float (&v)[4]) {
    const TrellinkNorm& norm = params.norm;
    const Raw4 raw = Raw4::load(norm.weight, column(item, lane), norm.weight_dtype);
    posts_ = exchange.posts(params.rows * item.groups()).copy(item.group()) +
             SumLayout::post(item.row() * item.groups() + lane);
    float weight[4];
    raw.unpack(norm.weight_dtype, weight);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], weight[i]);
  }

  // Looks for the sum of the squares of the item's row, the same in all lanes: a lane adds every 32nd item, then the lanes
  // are added. False if not all of it has come.
  __device__ bool look(const Exchange& exchange, const FinishItems& item, uint32_t lane, float& sum) const {
    constexpr uint32_t kBatch = 2;  // polled together: as many as lanes have in rows of 8192
    sum = 0;
#pragma unroll 1
    for (uint32_t group = lane; group - lane < item.groups(); group += kBatch * kLanes) {
      uint32_t squares[kBatch];
      if (!exchange.look_for_posts(posts_, group, kLanes, item.groups(), squares)) return false;
#pragma unroll
      for (uint32_t b = 0; b < kBatch; ++b) sum = __fadd_rn(sum, __uint_as_float(squares[b]));
    }
    sum = warp_sum(sum);
    return true;
  }

  // Normalises the item, of which v are the values times the weight, by the sum of the squares of the row.
  static __device__ void store(const TrellinkLinear& params, const FinishItems& item, uint32_t lane, float squares,
                               float (&v)[4]) {
    const TrellinkNorm& norm = params.norm;
    const float scale = __frsqrt_rn(__fmaf_rn(squares, norm.inverse_n, norm.epsilon));
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], scale);
    auto* to = reinterpret_cast<uint16_t*>(norm.out) + element(params.segment[0], item, lane);
    *reinterpret_cast<uint2*>(to) = pack4(v, norm.out_dtype);
  }

  // Reads back what this lane has stored of an item.
  static __device__ void read_back(const TrellinkSegment& segment, const FinishItems& item, uint32_t lane, float (&v)[4]) {
    Raw4::load(segment.out, element(segment, item, lane), segment.out_dtype).unpack(segment.out_dtype, v);
  }

 private:
  // The first of the lane's columns.
  static __device__ uint32_t column(const FinishItems& item, uint32_t lane) { return item.group() * kGroup + 4 * lane; }

  static __device__ uint64_t element(const TrellinkSegment& segment, const FinishItems& item, uint32_t lane) {
    return item.row() * segment.out_stride + column(item, lane);
  }

  uint64_t* own_post_;
  const uint64_t* posts_;  // of the row, from that of the lane on
};

}  // namespace trellink
