// From a 16-bit state to a weight, for the three codebooks of the format.
//
// The weight is an fp16 value. On the GPU two states make a half2 with the machine's own fp16
// arithmetic; on the host a state makes a float that holds exactly the same value.
#pragma once

#include "format/block.h"

namespace trellink {

enum class Codebook : uint32_t { k3inst = 0, kMcg = 1, kMul1 = 2 };

constexpr uint32_t k3instMultiplier = 89226354u;
constexpr uint32_t k3instIncrement = 64248484u;
constexpr uint32_t kMcgMultiplier = 0xCBAC1FEDu;
constexpr uint32_t kMul1Multiplier = 0x83DCD12Du;
// Keeps the sign, the two low exponent bits and the mantissa of each half, then centres the exponent.
constexpr uint32_t kHalvesMask = 0x8fff8fffu;
constexpr uint32_t kHalvesFlip = 0x3b603b60u;
// mul1: weight = fma(1024 + bytes, kMul1Scale, kMul1Shift) in fp16.
constexpr uint32_t kMul1Scale = 0x1eeeu;
constexpr uint32_t kMul1Shift = 0xc931u;
// The same exactly, before that rounding: (kMul1Slope * bytes - kMul1Offset) / kMul1Unit.
constexpr int32_t kMul1Slope = 887;
constexpr int32_t kMul1Offset = 452608;
constexpr float kMul1Unit = 131072.0f;

// Whether the format defines the codebook at this bitrate.
TRELLINK_HD constexpr bool codebook_supports(Codebook codebook, int half_bits) {
  return codebook == Codebook::kMul1 || half_bits % 2 == 0;
}

// The word as two fp16 halves of moderate size.
template <class W>
TRELLINK_HD W two_halves(W x) {
#if defined(__CUDA_ARCH__)
  return ptx::and_xor(x, kHalvesMask, kHalvesFlip);
#else
  return (x & kHalvesMask) ^ kHalvesFlip;
#endif
}

// The pseudo-random word of a state. 3inst and mcg: two fp16 halves whose sum is the weight.
// mul1: four bytes whose sum decides the weight.
template <Codebook kCodebook, class W>
TRELLINK_HD W scramble(W state) {
  if constexpr (kCodebook == Codebook::kMul1) {
    return state * (kMul1Multiplier * kHalvesOnce);
  } else if constexpr (kCodebook == Codebook::kMcg) {
    return two_halves(state * (kMcgMultiplier * kHalvesOnce));
  } else {
    return two_halves(state * (k3instMultiplier * kHalvesOnce) + k3instIncrement);
  }
}

#if defined(__CUDA_ARCH__)

// The weights of two scrambled states as fp16, the first in the low half.
template <Codebook kCodebook>
__device__ __forceinline__ uint32_t weight_pair(uint32_t x0, uint32_t x1) {
  if constexpr (kCodebook == Codebook::kMul1) {
    // 0x6400 is fp16 1024, where one unit in the last place is 1: adding the byte sum to the bits
    // adds it to the value. One sum for each of the two pipes, which are about as busy.
    const uint32_t b0 = ptx::dp4a_u8(x0, 0x01010101u, 0x6400u);
    const uint32_t b1 = ptx::sum_u8(x1, 0x6400u);
    return ptx::hfma2(ptx::prmt(b0, b1, 0x5410u), kMul1Scale * 0x10001u, kMul1Shift * 0x10001u);
  } else {
    // Each sum twice, and one PRMT: two PRMTs and a sum of both would fill the pipe of logic.
    return ptx::prmt(ptx::sum_of_halves(x0), ptx::sum_of_halves(x1), 0x5410u);
  }
}

#endif

}  // namespace trellink
