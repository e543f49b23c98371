// What a linear kernel keeps in shared memory, and where: all of its shared address arithmetic.
//
//   places  [warp] warp_bytes                        the weights on their way to a warp; later its sums,
//                                                    f32 [strip][kTokens][kSumStride]
//   input   [group]: [token] kTokenGroupBytes        the transformed input as MMA operands
//                    Scale [token, to whole 16 bytes] what undoes the scaling of a token's group
//
// The operands of a group are ordered as the arithmetic reads them. There are as many groups as fit. Kernels that
// transform walk over K in such chunks; operands that are ready go round in rings (operand_ring.cuh).
// src/plan.rs knows the same sizes.
#pragma once

#include "format/block.h"
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

constexpr int kWarps = TRELLINK_LINEAR_THREADS / 32;
constexpr int kMmaColumns = 8;  // columns of an MMA's B operand
constexpr int kQuads = 4;       // lanes that share a column

// Tokens that a group of inputs has places for.
template <class Arithmetic>
__device__ __forceinline__ uint32_t held_tokens(uint32_t tokens) {
  return Arithmetic::kHeldTokens > 0 ? Arithmetic::kHeldTokens : tokens;
}

template <class Arithmetic>
struct SharedLayout {
  using Scale = typename Arithmetic::Scale;
  static constexpr uint32_t kTokens = Arithmetic::kTokens;
  // 16 channels and a pad that keeps the lanes of an accumulator fragment on different banks.
  static constexpr uint32_t kSumStride = 20;

  unsigned char* base;
  uint32_t warp_bytes;
  uint32_t tokens;       // of this pass, at most kTokens
  uint32_t group_bytes;  // of the input

  SharedLayout() = default;
  __device__ SharedLayout(const TrellinkLinear& params, uint32_t pass_tokens)
      : base(ptx::dynamic_shared()),
        warp_bytes(params.warp_bytes),
        tokens(pass_tokens),
        group_bytes(held_tokens<Arithmetic>(pass_tokens) * Arithmetic::kTokenGroupBytes +
                    (held_tokens<Arithmetic>(pass_tokens) * static_cast<uint32_t>(sizeof(Scale)) + 15) / 16 * 16) {}

  // The sums of the strip'th strip of a warp, in bytes behind the base.
  __device__ uint32_t sum_offset(uint32_t warp, uint32_t strip, uint32_t token, uint32_t channel) const {
    return warp * warp_bytes + ((strip * kTokens + token) * kSumStride + channel) * static_cast<uint32_t>(sizeof(float));
  }
  __device__ float* sum(uint32_t warp, uint32_t strip, uint32_t token, uint32_t channel) const {
    return reinterpret_cast<float*>(base + sum_offset(warp, strip, token, channel));
  }
  // The operands of a token's group, 16-byte aligned. Neighbouring tokens lie kTokenGroupBytes apart, which the
  // arithmetic chooses so that the lanes of an access fall on different banks.
  __device__ unsigned char* input(uint32_t group, uint32_t token) const {
    return base + kWarps * warp_bytes + group * group_bytes + token * Arithmetic::kTokenGroupBytes;
  }
  __device__ Scale* scale(uint32_t group, uint32_t token) const {
    return reinterpret_cast<Scale*>(input(group, held_tokens<Arithmetic>(tokens))) + token;
  }
  // How far behind those of the first group and token others lie.
  __device__ uint32_t operands_offset(uint32_t group, uint32_t token) const {
    return group * group_bytes + token * Arithmetic::kTokenGroupBytes;
  }
  __device__ uint32_t scale_offset(uint32_t group, uint32_t token) const {
    return group * group_bytes + token * static_cast<uint32_t>(sizeof(Scale));
  }
  // What lies `bytes` behind something, such as whole groups behind what the first has.
  template <class T>
  static __device__ __forceinline__ const T* after(const T* p, uint32_t bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(p) + bytes);
  }
  template <class T>
  static __device__ __forceinline__ T* after(T* p, uint32_t bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(p) + bytes);
  }
};

}  // namespace trellink
