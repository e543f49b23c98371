// What a linear kernel keeps in shared memory, and where: all of its shared address arithmetic.
//
//   sums    f32 [warp][token][kSumStride]       a warp's result of one strip, to be added up
//   scales  f32 [group][kTokens]                what undoes the scaling of a group of inputs
//   input   [group][tile pair][token][quad] 16B the transformed input as MMA operands: of each
//                                               tile of the pair 4 fp16 values
//
// The input is cut to as many 128-channel groups as fit; kernels walk over K in such chunks.
#pragma once

#include "format/block.h"
#include "params.h"

namespace trellink {

constexpr int kWarps = TRELLINK_LINEAR_THREADS / 32;
constexpr int kMmaTokens = 8;  // tokens of one MMA
constexpr int kQuads = 4;      // lanes that share a token's operand
constexpr int kTilePairs = kBlockTiles / 2;

// kTokenBlocks: how many times kMmaTokens tokens a pass takes.
template <int kTokenBlocks>
struct SharedLayout {
  static constexpr uint32_t kTokens = kTokenBlocks * kMmaTokens;
  // 16 channels and a pad that keeps the lanes of an accumulator fragment on different banks.
  static constexpr uint32_t kSumStride = 20;
  static constexpr uint32_t kSumBytes = kWarps * kTokens * kSumStride * sizeof(float);
  static constexpr uint32_t kScaleBytes = kTokens * sizeof(float);
  static constexpr uint32_t kTokenGroupBytes = kTilePairs * kQuads * 16;

  unsigned char* base;
  uint32_t tokens;  // of this pass, at most kTokens
  uint32_t groups;  // that fit, of this many tokens

  __device__ SharedLayout(unsigned char* shared, uint32_t shared_bytes, uint32_t pass_tokens)
      : base(shared),
        tokens(pass_tokens),
        groups((shared_bytes - kSumBytes) / (kScaleBytes + pass_tokens * kTokenGroupBytes)) {}

  __device__ float* sum(uint32_t warp, uint32_t token, uint32_t channel) const {
    return reinterpret_cast<float*>(base) + (warp * kTokens + token) * kSumStride + channel;
  }
  __device__ float* scale(uint32_t group, uint32_t token) const {
    return reinterpret_cast<float*>(base + kSumBytes) + group * kTokens + token;
  }
  // What a lane with this token and quad feeds to the MMA of a tile: fp16 {k = 2q, 2q+1}, {2q+8, 2q+9}.
  // The two tiles of a pair are neighbours, so that one 16-byte load can serve both.
  __device__ uint2* input(uint32_t group, uint32_t tile, uint32_t token, uint32_t quad) const {
    unsigned char* first = base + kSumBytes + groups * kScaleBytes;
    const uint32_t pair = group * kTilePairs + tile / 2;
    return reinterpret_cast<uint2*>(first) + ((pair * tokens + token) * kQuads + quad) * 2 + tile % 2;
  }
};

}  // namespace trellink
