// Division of small numbers. What an integer division takes, 20 and more instructions that run once, is much of what a
// launch does at its ends.
#pragma once

#include "ptx/ptx.cuh"

namespace trellink {

// a / b for a up to 2^21.4 and b above 0: more than the 128-column items of the largest slot, 2^21, and a stride of the
// grid's warps. The half keeps what is rounded, a relative 2^-22.4 at most (2^-23 of the reciprocal, 2^-24 of the product),
// away from whole numbers, from which (a + 1/2) / b is 1 / 2b away.
__device__ __forceinline__ uint32_t quotient(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(__fmul_rn(static_cast<float>(a) + 0.5f, ptx::reciprocal_normal(static_cast<float>(b))));
}

}  // namespace trellink
