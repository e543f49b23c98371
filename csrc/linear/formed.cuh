// The arithmetic of formed weights for up to eight tokens: fp16 weights, bit for bit those of the format, times
// fp16 inputs.
//
// One MMA serves 16 channels, 16 inputs and 8 tokens; a group of 128 is summed in f32 by the tensor
// core, then scaled and added to the accumulator in f32.
#pragma once

#include "linear/decode.cuh"
#include "linear/float_sums.cuh"

namespace trellink {

struct Formed : FloatSums<1, false> {
  using Codebooks = AllCodebooks;
  static constexpr int kTokens = kMmaColumns;
  static constexpr int kStrips = 1;
  static constexpr int kWarpsTogether = 1;
  static constexpr uint32_t kHeldTokens = 0;
  static constexpr bool kSpans = false;
  static constexpr bool kChunks = true;
  static constexpr bool kFewTokens = false;
  static constexpr int kPairedHalfBits = 0;
  static constexpr uint32_t kTokenGroupBytes = kGroup * 2 + 32;
  using Shared = SharedLayout<Formed>;

  // What a lane with this token and quad feeds to the MMA of a tile: fp16 {k = 2q, 2q+1}, {2q+8, 2q+9}.
  static __device__ __forceinline__ uint2* operand(const Shared& shared, uint32_t group, uint32_t tile,
                                                   uint32_t token, uint32_t quad) {
    return reinterpret_cast<uint2*>(shared.input(group, token)) + tile * kQuads + quad;
  }

  // Writes a transformed row as the operands of its token's group.
  static __device__ __forceinline__ void store_row(const Shared& shared, const RowValues& row, uint32_t group,
                                                   uint32_t token, uint32_t quad, bool exists) {
    const uint32_t scale_bits = power_of_two_scale(row.magnitude());
    if (!exists) return;
    const float scale = __uint_as_float(scale_bits);
    if (quad == 0) *shared.scale(group, token) = __uint_as_float(inverse_power_of_two(scale_bits));
#pragma unroll
    for (int t = 0; t < kBlockTiles; ++t) {
      const float(&v)[4] = row.v[t];
      *operand(shared, group, t, token, quad) =
          make_uint2(ptx::pack_f16x2(__fmul_rn(v[0], scale), __fmul_rn(v[1], scale)),
                     ptx::pack_f16x2(__fmul_rn(v[2], scale), __fmul_rn(v[3], scale)));
    }
  }

  // acc += blocks * group `group` of the shared input.
  template <Codebook kCodebook, int kHalfBits, int kCount>
  static __device__ __forceinline__ void multiply(const LaneBlock<kHalfBits> (&blocks)[kCount], const Shared& shared,
                                                  uint32_t group, uint32_t lane, Accumulator (&acc)[kCount]) {
    static_assert(kCount == 1, "one strip a warp");
    const uint32_t row = lane / kQuads, quad = lane % kQuads;
    // A column without a token repeats the last one; its results go nowhere.
    const uint32_t token = min(row, shared.tokens - 1);
    float part[1][4] = {};
    static_for<kBlockTiles>([&](auto tile) {
      uint32_t x[kLaneWeights], a[4];
      blocks[0].template scrambled<kCodebook, tile>(x);
      form_weights<kCodebook>(x, a);
      const uint2 b = *operand(shared, group, tile, token, quad);
      ptx::mma_m16n8k16_f16(part[0], a[0], a[1], a[2], a[3], b.x, b.y);
    });
    add_group(shared, group, lane, part, acc[0]);
  }
};

}  // namespace trellink
