// What a linear kernel keeps in shared memory, and where: all of its shared address arithmetic.
//
//   sums    f32 [warp and strip][token][kSumStride]  a warp's result of one strip, to be added up
//   scales  Scale [group][kTokens]                   what undoes the scaling of a group of inputs
//   input   [group][token] kTokenGroupBytes          the transformed input as MMA operands
//
// The operands of a group are ordered as the arithmetic reads them. The input is cut to as many
// 128-channel groups as fit; kernels walk over K in such chunks. src/plan.rs knows the same sizes.
#pragma once

#include "format/block.h"
#include "params.h"

namespace trellink {

constexpr int kWarps = TRELLINK_LINEAR_THREADS / 32;
constexpr int kMmaColumns = 8;  // columns of an MMA's B operand
constexpr int kQuads = 4;       // lanes that share a column

template <class Arithmetic>
struct SharedLayout {
  using Scale = typename Arithmetic::Scale;
  static constexpr uint32_t kTokens = Arithmetic::kTokens;
  // 16 channels and a pad that keeps the lanes of an accumulator fragment on different banks.
  static constexpr uint32_t kSumStride = 20;
  static constexpr uint32_t kSumBytes = kWarps * Arithmetic::kStrips * kTokens * kSumStride * sizeof(float);
  static constexpr uint32_t kScaleBytes = kTokens * sizeof(Scale);

  unsigned char* base;
  uint32_t tokens;  // of this pass, at most kTokens
  uint32_t groups;  // that fit, of this many tokens

  __device__ SharedLayout(unsigned char* shared, uint32_t shared_bytes, uint32_t pass_tokens)
      : base(shared),
        tokens(pass_tokens),
        groups((shared_bytes - kSumBytes) / (kScaleBytes + pass_tokens * Arithmetic::kTokenGroupBytes)) {}

  __device__ float* sum(uint32_t warp_strip, uint32_t token, uint32_t channel) const {
    return reinterpret_cast<float*>(base) + (warp_strip * kTokens + token) * kSumStride + channel;
  }
  __device__ Scale* scale(uint32_t group, uint32_t token) const {
    return reinterpret_cast<Scale*>(base + kSumBytes) + group * kTokens + token;
  }
  // The operands of a token's group. Neighbouring tokens lie kTokenGroupBytes apart, which the
  // arithmetic chooses so that the lanes of a load fall on different banks.
  __device__ unsigned char* input(uint32_t group, uint32_t token) const {
    return base + kSumBytes + groups * kScaleBytes + (group * tokens + token) * Arithmetic::kTokenGroupBytes;
  }
};

}  // namespace trellink
