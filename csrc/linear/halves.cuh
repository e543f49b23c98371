// The arithmetic of two halves, for 3inst and mcg and few tokens.
//
// The scrambled word holds two fp16 halves whose sum is the weight. It is used as it is, as two
// neighbouring K entries of the A operand, with the input in both: the tensor core adds the halves,
// in f32 and without the format's rounding of the sum to fp16 (a relative error of 2^-12). Twice the MMAs for two thirds of the instructions; two strips share the
// loads of the inputs. An input is two fp16, rounded and what the rounding left, in neighbouring columns:
// so its own error is gone, and an MMA serves four tokens.
#pragma once

#include "linear/column_pairs.cuh"
#include "linear/decode.cuh"
#include "linear/float_sums.cuh"

namespace trellink {

struct Halves : ColumnPairs {
  using Codebooks = Dispatch<Codebook::k3inst, Codebook::kMcg>;
  using Scale = float;
  // Two strips of more words would not leave enough registers.
  static constexpr int kStrips = 2;
  static constexpr int kPairedHalfBits = 8;
  static constexpr bool kFewTokens = true;
  static constexpr uint32_t kColumnBytes = kGroup * 4 + 64;
  static constexpr uint32_t kTokenGroupBytes = 2 * kColumnBytes;
  using Shared = SharedLayout<Halves>;

  // What a lane with this column (2 * token, + 1 for what the rounding left) and quad feeds to the two
  // MMAs of a tile: k = 2q, 2q+1, 2q+8, 2q+9, each as two equal fp16.
  static __device__ __forceinline__ uint4* operand(const Shared& shared, uint32_t group, uint32_t tile,
                                                   uint32_t column, uint32_t quad) {
    return reinterpret_cast<uint4*>(shared.input(group, 0) + column * kColumnBytes) + tile * kQuads + quad;
  }

  // Lane l brings channels 4l .. 4l+3 of a transformed group, whose greatest magnitude (as f32 bits)
  // is `magnitude`.
  static __device__ __forceinline__ void store_group(const Shared& shared, const float (&v)[4], uint32_t magnitude,
                                                     uint32_t group, uint32_t token, uint32_t lane) {
    const uint32_t scale_bits = power_of_two_scale(magnitude);
    const float scale = __uint_as_float(scale_bits);
    if (lane == 0) *shared.scale(group, token) = __uint_as_float(inverse_power_of_two(scale_bits));
    uint32_t rounded[4], rest[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float x = __fmul_rn(v[i], scale);
      rounded[i] = ptx::pack_f16x2(x, x);
      const float left = __fsub_rn(x, ptx::f16_to_f32(rounded[i] & 0xffffu));
      rest[i] = ptx::pack_f16x2(left, left);
    }
    // Half an operand each of two quads.
    const uint32_t k = lane % 4 * 4;
    auto* first = reinterpret_cast<uint2*>(operand(shared, group, lane / 4, 2 * token, k % 8 / 2)) + k / 8;
    first[0] = make_uint2(rounded[0], rounded[1]);
    first[2] = make_uint2(rounded[2], rounded[3]);
    first += kColumnBytes / sizeof(uint2);
    first[0] = make_uint2(rest[0], rest[1]);
    first[2] = make_uint2(rest[2], rest[3]);
  }

  // As Formed::multiply, for kCount strips that share the inputs.
  template <Codebook kCodebook, int kHalfBits, int kCount>
  static __device__ __forceinline__ void multiply(const LaneBlock<kHalfBits> (&blocks)[kCount], const Shared& shared,
                                                  uint32_t group, uint32_t lane, Accumulator (&acc)[kCount]) {
    const uint32_t row = lane / kQuads, quad = lane % kQuads;
    // A column without a token repeats the last one; its results go nowhere.
    const uint32_t column = min(row, 2 * shared.tokens - 1);
    float part[kCount][4] = {};
    static_for<kBlockTiles>([&](auto tile) {
      const uint4 b = *operand(shared, group, tile, column, quad);
#pragma unroll
      for (int s = 0; s < kCount; ++s) {
        uint32_t x[kLaneWeights];
        blocks[s].template scrambled<kCodebook, tile>(x);
        // Each MMA takes half of the lane's rows of the tile: those of b.x and b.y, then the others.
        ptx::mma_m16n8k16_f16(part[s], x[0], x[4], x[1], x[5], b.x, b.y);
        ptx::mma_m16n8k16_f16(part[s], x[2], x[6], x[3], x[7], b.z, b.w);
      }
    });
    const float scale = *shared.scale(group, min(quad, shared.tokens - 1));
#pragma unroll
    for (int s = 0; s < kCount; ++s) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        acc[s].v[i] = __fmaf_rn(scale, __fadd_rn(part[s][2 * i], part[s][2 * i + 1]), acc[s].v[i]);
      }
    }
  }
};

}  // namespace trellink
