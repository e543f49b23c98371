// The transformed input of a launch in memory, where one launch of the transform kernel leaves it for all CTAs
// of the linear kernel: [segment] operand_stride bytes, in them
//
//   [pass][group]: [token] kTokenGroupBytes
//                  Scale [token]
//
// with places for all tokens of every pass. That is how SharedLayout has a group, so neighbouring groups of a pass are
// one contiguous copy. src/plan/transform.rs knows the size.
#pragma once

#include "linear/shared_layout.cuh"

// Whether operands come through rings (operand_ring.cuh): from Hopper on, but for sm_120, where kernels with both ways of
// input would not have registers enough.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
#define TRELLINK_RINGS 1
#else
#define TRELLINK_RINGS 0
#endif

namespace trellink {

template <class Arithmetic>
struct Operands {
  using Scale = typename Arithmetic::Scale;
  static constexpr uint32_t kTokens = Arithmetic::kHeldTokens;
  static constexpr uint32_t kInputBytes = kTokens * Arithmetic::kTokenGroupBytes;
  static constexpr uint32_t kGroupBytes = kInputBytes + kTokens * sizeof(Scale);

  unsigned char* first;

  // Those of a pass. params: of the transform or of the linear kernel.
  template <class Params>
  __device__ Operands(const Params& params, uint32_t segment, uint32_t pass)
      : first(reinterpret_cast<unsigned char*>(params.operands) + segment * params.operand_stride +
              static_cast<uint64_t>(pass) * params.k_groups * kGroupBytes) {}

  __device__ unsigned char* input(uint32_t group, uint32_t token) const {
    return first + static_cast<uint64_t>(group) * kGroupBytes + token * Arithmetic::kTokenGroupBytes;
  }
  __device__ Scale* scale(uint32_t group, uint32_t token) const {
    return reinterpret_cast<Scale*>(input(group, kTokens)) + token;
  }
};

#if !TRELLINK_RINGS

// Copies groups [first, first + groups) to the first places of the shared input. By all threads of the CTA; each
// waits for what it has copied.
template <class Arithmetic>
__device__ __forceinline__ void copy_operands(const Operands<Arithmetic>& from, const typename Arithmetic::Shared& to,
                                              uint32_t first, uint32_t groups) {
  constexpr uint32_t kBytes = 16;
  for (uint32_t i = threadIdx.x * kBytes; i < groups * Operands<Arithmetic>::kGroupBytes; i += blockDim.x * kBytes) {
    ptx::cp_async_16(to.input(0, 0) + i, from.input(first, 0) + i);
  }
  ptx::cp_async_wait_all();
}

#endif

}  // namespace trellink
