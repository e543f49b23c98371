// The arithmetic of formed weights for few tokens: fp16 weights, bit for bit those of the format, times
// inputs in two fp16, rounded and what the rounding left, in neighbouring columns. Both products are
// exact, so what remains is the rounding of f32 sums; an MMA serves four tokens.
//
// 3inst and mcg could be multiplied unformed, as the two halves whose sum is the weight: it saves 16
// instructions a tile and costs an MMA more, which is worth 6. But it leaves out the format's rounding of
// that sum, and real layers whose transformed outputs cancel show it (docs/performance.md).
#pragma once

#include "format/hadamard.cuh"
#include "linear/column_pairs.cuh"
#include "linear/decode.cuh"
#include "linear/float_sums.cuh"

namespace trellink {

struct FormedPairs : ColumnPairs {
  using Codebooks = AllCodebooks;
  using Scale = float;
  // Two would not leave enough registers.
  static constexpr int kStrips = 1;
  static constexpr int kPairedHalfBits = 0;
  static constexpr int kWarpsTogether = 1;
  static constexpr uint32_t kHeldTokens = 0;
  static constexpr bool kSpans = false;
  static constexpr bool kTransforms = true;
  static constexpr bool kFewTokens = true;
  static constexpr uint32_t kColumnBytes = kGroup * 2 + 64;
  static constexpr int kPairTiles = 2;
  static constexpr uint32_t kTokenGroupBytes = 2 * kColumnBytes;
  using Shared = SharedLayout<FormedPairs>;

  // What a lane with this column (2 * token, + 1 for what the rounding left) and quad feeds to the MMAs of
  // a pair of tiles, which follow each other: fp16 {k = 2q, 2q+1}, {2q+8, 2q+9}.
  static __device__ __forceinline__ uint4* operand(const Shared& shared, uint32_t group, uint32_t pair,
                                                   uint32_t column, uint32_t quad) {
    return reinterpret_cast<uint4*>(shared.input(group, 0) + column * kColumnBytes) + pair * kQuads + quad;
  }

  // Where lane l of a warp that brings channels 4l .. 4l+3 of a group has its part of the first group and token: half of
  // what an MMA takes, each of two quads.
  static __device__ __forceinline__ unsigned char* lane_operands(const Shared& shared, uint32_t lane) {
    const uint32_t k = lane % 4 * 4, tile = lane / 4;
    auto* half = reinterpret_cast<uint32_t*>(operand(shared, 0, tile / kPairTiles, 0, k % 8 / 2)) +
                 tile % kPairTiles * 2 + k / 8;
    return reinterpret_cast<unsigned char*>(half);
  }

  // Stores a transformed group of a token there, not yet times kHadamardScale, whose greatest magnitude (as f32 bits) is
  // `magnitude`.
  static __device__ __forceinline__ void store_group(unsigned char* operands, Scale* group_scale, const float (&v)[4],
                                                     uint32_t magnitude, uint32_t lane) {
    const uint32_t scale_bits = power_of_two_scale(magnitude);
    const float scale = __uint_as_float(scale_bits);
    if (lane == 0) *group_scale = __fmul_rn(__uint_as_float(inverse_power_of_two(scale_bits)), kHadamardScale);
    uint32_t rounded[2], rest[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float x = __fmul_rn(v[2 * i], scale), y = __fmul_rn(v[2 * i + 1], scale);
      rounded[i] = ptx::pack_f16x2(x, y);
      rest[i] = ptx::pack_f16x2(__fsub_rn(x, ptx::f16_to_f32(rounded[i] & 0xffffu)),
                                __fsub_rn(y, ptx::f16_to_f32(rounded[i] >> 16)));
    }
    constexpr uint32_t kQuadWords = sizeof(uint4) / sizeof(uint32_t);
    auto* first = reinterpret_cast<uint32_t*>(operands);
    first[0] = rounded[0];
    first[kQuadWords] = rounded[1];
    first += kColumnBytes / sizeof(uint32_t);
    first[0] = rest[0];
    first[kQuadWords] = rest[1];
  }

  // As Formed::multiply.
  template <Codebook kCodebook, int kHalfBits, int kCount>
  static __device__ __forceinline__ void multiply(const LaneBlock<kHalfBits> (&blocks)[kCount], const Shared& shared,
                                                  uint32_t group, uint32_t lane, Accumulator (&acc)[kCount]) {
    static_assert(kCount == 1, "one strip a warp");
    const uint32_t row = lane / kQuads, quad = lane % kQuads;
    // What does not depend on the group stays in registers. A column without a token repeats the last one; its results
    // go nowhere.
    const uint32_t offset = group * shared.group_bytes;
    const uint4* first = operand(shared, 0, 0, min(row, 2 * shared.tokens - 1), quad);
    float part[4] = {};
    static_for<kBlockTiles / kPairTiles>([&](auto pair) {
      const uint4 b = shared.after(first, offset)[pair * kQuads];
      static_for<kPairTiles>([&](auto i) {
        uint32_t x[kLaneWeights], a[4];
        blocks[0].template scrambled<kCodebook, pair * kPairTiles + i>(x);
        form_weights<kCodebook>(x, a);
        ptx::mma_m16n8k16_f16(part, a[0], a[1], a[2], a[3], i == 0 ? b.x : b.z, i == 0 ? b.y : b.w);
      });
    });
    const float scale = *shared.after(shared.scale(0, min(quad, shared.tokens - 1)), offset);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      acc[0].v[i] = __fmaf_rn(scale, __fadd_rn(part[2 * i], part[2 * i + 1]), acc[0].v[i]);
    }
  }
};

}  // namespace trellink
