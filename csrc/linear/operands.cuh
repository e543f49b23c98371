// The transformed input of a launch in memory, where one launch of the transform kernel leaves it for all CTAs
// of the linear kernel: [segment] operand_stride bytes, in them
//
//   input   [pass][group][token] kTokenGroupBytes
//   scales  Scale [pass][group][tokens, to whole 16 bytes]
//
// A pass is as many tokens as the arithmetic takes at once, the last one fewer. So what a CTA holds at a time,
// neighbouring groups of a pass, is contiguous here and as SharedLayout has it. src/plan.rs knows the size.
#pragma once

#include "linear/shared_layout.cuh"

namespace trellink {

template <class Arithmetic>
struct Operands {
  using Scale = typename Arithmetic::Scale;

  unsigned char* input_;
  unsigned char* scales_;
  uint32_t tokens;       // of the pass
  uint32_t scale_bytes;  // of a group

  // Those of a pass. params: of the transform or of the linear kernel.
  template <class Params>
  __device__ Operands(const Params& params, uint32_t segment, uint32_t first_token, uint32_t pass_tokens)
      : tokens(pass_tokens), scale_bytes(scale_bytes_of<Arithmetic>(pass_tokens)) {
    auto* base = reinterpret_cast<unsigned char*>(params.operands) + segment * params.operand_stride;
    const uint64_t groups = params.k_groups;
    input_ = base + first_token * groups * Arithmetic::kTokenGroupBytes;
    scales_ = base + params.rows * groups * Arithmetic::kTokenGroupBytes + first_token * groups * sizeof(Scale);
  }

  __device__ unsigned char* input(uint32_t group, uint32_t token) const {
    return input_ + static_cast<uint64_t>(group * tokens + token) * Arithmetic::kTokenGroupBytes;
  }
  __device__ Scale* scale(uint32_t group, uint32_t token) const {
    return reinterpret_cast<Scale*>(scales_ + group * scale_bytes) + token;
  }
};

// Copies groups [first, first + groups) into the shared input. By all threads of the CTA; the caller
// synchronises.
template <class Arithmetic>
__device__ __forceinline__ void copy_operands(const Operands<Arithmetic>& from, const SharedLayout<Arithmetic>& to,
                                              uint32_t first, uint32_t groups) {
  constexpr uint32_t kBytes = 16;
  const uint32_t input_bytes = groups * from.tokens * Arithmetic::kTokenGroupBytes;
  const unsigned char* input = from.input(first, 0);
  unsigned char* shared_input = to.input(0, 0);
  for (uint32_t i = threadIdx.x * kBytes; i < input_bytes; i += blockDim.x * kBytes) {
    ptx::cp_async_16(shared_input + i, input + i);
  }
  const auto* scales = reinterpret_cast<const unsigned char*>(from.scale(first, 0));
  auto* shared_scales = reinterpret_cast<unsigned char*>(to.scale(0, 0));
  for (uint32_t i = threadIdx.x * kBytes; i < groups * from.scale_bytes; i += blockDim.x * kBytes) {
    ptx::cp_async_16(shared_scales + i, scales + i);
  }
  ptx::cp_async_wait_all();
}

}  // namespace trellink
