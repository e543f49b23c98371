// A warp's share of the product: blocks of one strip, or of two neighbouring ones, over some of K.
//
// The order of additions depends on the layer and on how the launch cuts the columns, so a row's
// result does not depend on the other rows or on its place among them.
#pragma once

#include <type_traits>

#include "linear/decode.cuh"
#include "linear/operand_ring.cuh"
#include "linear/shared_layout.cuh"
#include "linear/weight_stream.cuh"

namespace trellink {

// kCount: strips, at most Arithmetic::kStrips.
template <class Arithmetic, int kCount>
struct StripGemm {
  const typename Arithmetic::Shared& shared;
  WeightStream<Arithmetic::kSpans>& weights;
  const OperandRing<Arithmetic>& ring;
  bool from_ring;
  // Otherwise the CTA's K groups [first, first + chunk) are in the shared input, as far as there are so many.
  uint32_t first, chunk;
  typename Arithmetic::Accumulator (&acc)[kCount];

  // Two strips of more bits would not leave enough registers.
  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void run() {
    if constexpr (kCount == 1 || kHalfBits <= Arithmetic::kPairedHalfBits) multiply<kCodebook, kHalfBits>();
  }

 private:
  // Where the spans end that can be had.
  __device__ uint32_t end(const WarpRecord& state) const {
    const uint32_t groups = state.walk.groups;
    return spans_of(from_ring ? groups : min(first + chunk, groups), weights.log2());
  }

  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void multiply() {
    using B = LaneBlock<kHalfBits>;
    constexpr uint32_t kWords = Block<kHalfBits>::kWords;
    const uint32_t lane = ptx::opaque(threadIdx.x % 32);
    // Registers for a copy there are, but not with sums of 64 tokens, nor beside the loops of older kernels.
    constexpr bool kHeld = (TRELLINK_RINGS || Arithmetic::kStraight) && Arithmetic::kTokens < 64;
    const std::conditional_t<kHeld, const WarpRecord, const WarpRecord&> state = weights.record();
    const uint32_t log2 = weights.log2(), held_end = kHeld ? end(state) : 0;
    typename Arithmetic::Shared shared = this->shared;
    if constexpr (kHeld) shared.base = state.base.get();
    typename OperandRing<Arithmetic>::At at{};
    for (uint32_t span; (span = weights.span()) < (kHeld ? held_end : end(state));) {
      uint32_t left = weights.groups(state), place = 0;
      const uint32_t* words = weights.blocks(state);
      uint32_t group = (span << log2) - first;
      if constexpr (Arithmetic::kSpans) {
        if (from_ring) {
          place = ring.await(at, span, state);
          group = place << log2;
        }
      }
      // The body is long: unrolled, it would only take more registers.
#pragma unroll 1
      for (bool more = true; more; ++group, words += kWords) {
        more = --left != 0;
        if constexpr (kCount == 2) {
          const B blocks[2] = {B(words, lane), B(words + (kWords << log2), lane)};
          if (!more) weights.template advance<kHeld>(state, kCount, kWords);
          Arithmetic::template multiply<kCodebook, kHalfBits, kCount>(blocks, shared, group, lane, acc);
        } else {
          const B blocks[1] = {B(words, lane)};
          if (!more) weights.template advance<kHeld>(state, kCount, kWords);
          Arithmetic::template multiply<kCodebook, kHalfBits, kCount>(blocks, shared, group, lane, acc);
        }
      }
      if constexpr (Arithmetic::kSpans) {
        if (from_ring) ring.release(place, state);
      }
    }
  }
};

}  // namespace trellink
