// From a vector of states to a vector of weights: floats that hold exactly the format's fp16 values.
//
// Every weight is rounded once, to the nearest fp16, ties to even. The value before it is exact in
// f32 and, as argued below, zero or a normal fp16 number, so that rounding is integer arithmetic.
#pragma once

#include "format/codebook.h"
#include "host/simd.h"

namespace trellink {
namespace {

// Rounds floats that are zero or in fp16's normal range to 11 significant bits, ties to even. A
// carry out of the mantissa moves into the exponent, as it should.
TRELLINK_HD F32 round_to_fp16(F32 exact) {
  const U32 bits = (U32)exact;
  const U32 odd = (bits >> 13) & 1u;
  return (F32)((bits + odd + 0xfffu) & ~0x1fffu);
}

// The fp16 in the high half of each word as a float. scramble() leaves exponent fields of 12 to 15,
// so the number is normal and, bit 14 being clear and bits 13 and 12 set, adding the difference of
// the exponents' biases (112) is an or.
static_assert((kHalvesMask & 0x70007000u) == 0 && (kHalvesFlip & 0x70007000u) == 0x30003000u,
              "exponent fields of 12 to 15");
TRELLINK_HD F32 high_half(U32 x) {
  const U32 in_place = (U32)((I32)x >> 3) & 0x8fffe000u;
  return (F32)(in_place | (112u << 23));
}

// The sum of the halves. Both are multiples of 2^-13 below 2 in magnitude, so the sum is a multiple
// of 2^-13 below 4: 15 significant bits, exact in f32. It is 0 or at least 2^-13, while fp16 is
// normal from 2^-14 on. Halves are not zero, so a sum of zero is +0, as in fp16.
TRELLINK_HD F32 sum_of_halves(U32 x) { return high_half(x) + high_half(x << 16); }

// fma(1024 + b, kMul1Scale, kMul1Shift) without its rounding, b being the sum of the four bytes. The
// constants are 887 * 2^-17 and -1329 * 2^-7, so the value is (887 b - 452608) * 2^-17. Product and
// difference are integers below 2^20 times a power of two: exact in f32, fused or not.
constexpr int kMul1Slope = 887;
constexpr int kMul1Offset = 1329 * 1024 - 1024 * kMul1Slope;
// Nearest to zero at b = 510 and 511: far above the 8 * 2^-17 = 2^-14 where fp16 becomes subnormal.
static_assert(kMul1Offset - 510 * kMul1Slope >= 8 && 511 * kMul1Slope - kMul1Offset >= 8,
              "every mul1 weight is a normal fp16 number");
TRELLINK_HD F32 affine_of_byte_sum(U32 x) {
  const U32 pairs = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
  const U32 bytes = (pairs + (pairs >> 16)) & 0xffffu;
  constexpr float kUnit = 1.0f / (1 << 17);
  return __builtin_convertvector((I32)bytes, F32) * (kMul1Slope * kUnit) - kMul1Offset * kUnit;
}

template <Codebook kCodebook>
TRELLINK_HD F32 weights_of_states(U32 states) {
  const U32 x = scramble<kCodebook>(states);
  if constexpr (kCodebook == Codebook::kMul1) {
    return round_to_fp16(affine_of_byte_sum(x));
  } else {
    return round_to_fp16(sum_of_halves(x));
  }
}

}  // namespace
}  // namespace trellink
