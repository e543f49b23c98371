// The RMSNorm of finished rows, or what it takes. out = round((y * weight) / sqrt(mean(y^2) + epsilon)), y as it was stored.
//
// A row is finished by many CTAs. Each warp posts the sum of squares of its 128 columns where the sum over
// ranks of these columns was collected, in this rank's own arena; then the warps go over their items once
// more, wait for the posts of the item's row and add them up. Nobody waits before he has posted all of his, so
// the waits end. The order of additions is that of the columns, whoever adds, so all ranks get the same bits.
//
// A lane reads back from the output what it has stored itself: that needs no fence, takes no registers
// while other items are finished, and its load overlaps the wait.
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

// Four neighbouring elements of any dtype as they are in memory, so that loads of several overlap.
struct Raw4 {
  uint2 low, high;

  static __device__ __forceinline__ Raw4 load(uint64_t base, uint64_t element, uint32_t dtype) {
    const bool wide = dtype == TRELLINK_DTYPE_F32;
    const auto* from = reinterpret_cast<const uint2*>(base + element * (wide ? sizeof(float) : sizeof(uint16_t)));
    return {from[0], wide ? from[1] : make_uint2(0, 0)};
  }

  __device__ __forceinline__ void unpack(uint32_t dtype, float (&v)[4]) const {
    const uint32_t words[4] = {low.x, low.y, high.x, high.y};
    unpack4(low, dtype, v);
    if (dtype != TRELLINK_DTYPE_F32) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __uint_as_float(words[i]);
  }
};

// Brings the weights of an item near while its sum is awaited: they come from memory.
__device__ __forceinline__ void prefetch_weight(const TrellinkNorm& norm, uint32_t group, uint32_t lane) {
  const uint64_t bytes = norm.weight_dtype == TRELLINK_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
  ptx::prefetch_l2(reinterpret_cast<const void*>(norm.weight + (group * kGroup + 4 * lane) * bytes));
}

// Posts or stores the sum of the squares of an item, whose values v are rounded here as they were stored.
__device__ __forceinline__ void leave_squares(const TrellinkLinear& params, const Exchange& exchange, uint32_t item,
                                             float (&v)[4], uint32_t lane) {
  const uint32_t dtype = params.segment[0].out_dtype;
  if (dtype != TRELLINK_DTYPE_F32) unpack4(pack4(v, dtype), dtype, v);
  float sum = __fmul_rn(v[0], v[0]);
#pragma unroll
  for (int i = 1; i < 4; ++i) sum = __fmaf_rn(v[i], v[i], sum);
  sum = warp_sum(sum);
  if (lane != 0) return;
  const TrellinkNorm& norm = params.norm;
  if (norm.out) exchange.post(item, __float_as_uint(sum));
  if (norm.squares) {
    constexpr uint32_t kGroupStrips = kGroup / kTile;
    const uint32_t groups = params.strips / kGroupStrips;
    const uint32_t row = quotient(item, groups), group = item - row * groups;
    const uint64_t place = row * norm.square_stride + params.first_strip / kGroupStrips + group;
    reinterpret_cast<float*>(norm.squares)[place] = sum;
  }
}

// The sum of the squares of the row whose items begin at `first`: a lane adds every 32nd item, then the lanes
// are added. False if the wait failed.
__device__ __forceinline__ bool collect_squares(const Exchange& exchange, uint64_t first, uint32_t groups, uint32_t lane,
                                                float& sum) {
  constexpr uint32_t kBatch = 2;  // polled together: as many as lanes have in rows of 8192
  sum = 0;
#pragma unroll 1
  for (uint32_t group = lane; group < groups; group += kBatch * kLanes) {
    uint32_t squares[kBatch];
    const uint32_t count = (groups - group + kLanes - 1) / kLanes;
    if (!exchange.await_posts(first + group, kLanes, count, squares)) return false;
#pragma unroll
    for (uint32_t b = 0; b < kBatch; ++b) sum = __fadd_rn(sum, __uint_as_float(squares[b]));
  }
  return true;
}

// Normalises the items that this warp has finished, `finish_rows`' items in its order.
__device__ __forceinline__ void normalise_rows(const TrellinkLinear& params, const Exchange& exchange,
                                               const FinishItems& items) {
  const TrellinkNorm& norm = params.norm;
  const TrellinkSegment& segment = params.segment[0];
  // Opaque, or the compiler keeps what it knows of the thread in registers through the main loop.
  const uint32_t lane = ptx::opaque(threadIdx.x) % kLanes;
#pragma unroll 1
  for (FinishItems item = items; item.more(); item.next()) {
    const uint32_t column = item.group() * kGroup + 4 * lane;
    const uint64_t element = item.row() * segment.out_stride + column;
    const Raw4 raw = Raw4::load(segment.out, element, segment.out_dtype);
    const Raw4 raw_weight = Raw4::load(norm.weight, column, norm.weight_dtype);
    float v[4], weight[4];
    raw.unpack(segment.out_dtype, v);
    raw_weight.unpack(norm.weight_dtype, weight);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], weight[i]);
    float sum;
    const bool arrived = collect_squares(exchange, item.row() * item.groups(), item.groups(), lane, sum);
    // A failed call's outputs are void.
    if (!__all_sync(0xffffffffu, arrived)) return;
    const float scale = __frsqrt_rn(__fmaf_rn(warp_sum(sum), norm.inverse_n, norm.epsilon));
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], scale);
    *reinterpret_cast<uint2*>(reinterpret_cast<uint16_t*>(norm.out) + element) = pack4(v, norm.out_dtype);
  }
}

}  // namespace trellink
