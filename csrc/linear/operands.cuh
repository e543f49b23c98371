// The transformed input of a launch in memory, where one launch of the transform kernel leaves it for all CTAs
// of the linear kernel: [segment] operand_stride bytes, in them
//
//   input   [pass][group][token] kTokenGroupBytes
//   scales  Scale [pass][group][token]
//
// with places for all tokens of every pass. So what a CTA holds at a time, neighbouring groups of a pass, is
// contiguous here and as SharedLayout has it. src/plan.rs knows the size.
#pragma once

#include "linear/shared_layout.cuh"

namespace trellink {

template <class Arithmetic>
struct Operands {
  using Scale = typename Arithmetic::Scale;
  static constexpr uint32_t kTokens = Arithmetic::kHeldTokens;

  unsigned char* first_input;
  Scale* first_scale;

  // Those of a pass. params: of the transform or of the linear kernel.
  template <class Params>
  __device__ Operands(const Params& params, uint32_t segment, uint32_t pass) {
    auto* base = reinterpret_cast<unsigned char*>(params.operands) + segment * params.operand_stride;
    const uint64_t pass_places = static_cast<uint64_t>(params.k_groups) * kTokens;
    const uint32_t passes = (params.rows + kTokens - 1) / kTokens;
    first_input = base + pass * pass_places * Arithmetic::kTokenGroupBytes;
    first_scale = reinterpret_cast<Scale*>(base + passes * pass_places * Arithmetic::kTokenGroupBytes) +
                  pass * pass_places;
  }

  __device__ unsigned char* input(uint32_t group, uint32_t token) const {
    return first_input + static_cast<uint64_t>(group * kTokens + token) * Arithmetic::kTokenGroupBytes;
  }
  __device__ Scale* scale(uint32_t group, uint32_t token) const { return first_scale + group * kTokens + token; }
};

// Copies `bytes`, a multiple of 16, into shared memory. By all threads of the CTA.
__device__ __forceinline__ void start_copy(void* shared, const void* from, uint32_t bytes) {
  constexpr uint32_t kBytes = 16;
  for (uint32_t i = threadIdx.x * kBytes; i < bytes; i += blockDim.x * kBytes) {
    ptx::cp_async_16(static_cast<unsigned char*>(shared) + i, static_cast<const unsigned char*>(from) + i);
  }
}

// Starts to copy groups [first, first + groups) to places from `place` on of the shared input.
template <class Arithmetic>
__device__ __forceinline__ void copy_operands(const Operands<Arithmetic>& from, const SharedLayout<Arithmetic>& to,
                                              uint32_t first, uint32_t place, uint32_t groups) {
  const uint32_t places = groups * Arithmetic::kHeldTokens;
  start_copy(to.input(place, 0), from.input(first, 0), places * Arithmetic::kTokenGroupBytes);
  start_copy(to.scale(place, 0), from.scale(first, 0), places * sizeof(typename Arithmetic::Scale));
}

}  // namespace trellink
