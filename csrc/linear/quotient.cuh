// Division of small numbers. What an integer division takes, 20 and more instructions that run once, is much of what a
// launch does at its ends.
#pragma once

#include "ptx/ptx.cuh"

namespace trellink {

// a / b for a below 2^20 and b above 0. The half keeps the rounding, a relative 2^-22 at most, away from whole numbers,
// from which (a + 1/2) / b is 1 / 2b away.
__device__ __forceinline__ uint32_t quotient(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(__fmul_rn(static_cast<float>(a) + 0.5f, ptx::reciprocal(static_cast<float>(b))));
}

}  // namespace trellink
