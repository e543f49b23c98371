// Launches whose CTAs go straight from the first instruction to the last, as an arithmetic of their own.
//
// What a launch does once takes longest where the code lies apart: it waits at every jump. So launches
// of one segment, of which every CTA has one piece, and one chunk of the input or rings of it, have
// kernels for one format, without the code that they would jump over (docs/performance.md). src/plan.rs knows which
// launches are such and which formats have kernels. They compute what the others do, bit for bit. Where there
// are rings, those of more than a few tokens take from them what a launch ahead has transformed, and know nothing else.
#pragma once

#include "format/dispatch.h"
#include "linear/operands.cuh"

namespace trellink {

template <class Arithmetic, Codebook kCodebook, int kFormatHalfBits>
struct Straight : Arithmetic {
  using Codebooks = Only<kCodebook, kFormatHalfBits>;
  static constexpr bool kStraight = true;
  static constexpr bool kTransforms = Arithmetic::kTransforms && (Arithmetic::kFewTokens || !TRELLINK_RINGS);
  static constexpr uint32_t kHalfBits = kFormatHalfBits;
};

// What the other arithmetics are.
struct NotStraight {
  static constexpr bool kStraight = false;
  static constexpr uint32_t kHalfBits = 0;  // those of the segment
};

}  // namespace trellink
