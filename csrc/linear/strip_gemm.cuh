// A warp's share of the product: blocks of one strip, or of two neighbouring ones, over a chunk of K.
//
// The order of additions depends on the layer and on how the launch cuts the columns, so a row's
// result does not depend on the other rows or on its place among them.
#pragma once

#include "linear/decode.cuh"
#include "linear/shared_layout.cuh"
#include "linear/weight_stream.cuh"

namespace trellink {

// kCount: strips, at most Arithmetic::kStrips.
template <class Arithmetic, int kCount>
struct StripGemm {
  const SharedLayout<Arithmetic>& shared;
  WeightStream& weights;
  uint32_t first;  // the group that lies, or would lie, in place 0 of the shared input
  uint32_t end;    // of what is loaded
  typename Arithmetic::Accumulator (&acc)[kCount];

  // Bitrates that the other kCount serves are not compiled for this one.
  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void run() {
    if constexpr ((kHalfBits <= Arithmetic::kPairedHalfBits) == (kCount == 2)) multiply<kCodebook, kHalfBits>();
  }

 private:
  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void multiply() {
    using B = LaneBlock<kHalfBits>;
    constexpr uint32_t kWords = Block<kHalfBits>::kWords;
    const uint32_t lane = ptx::opaque(threadIdx.x % 32);
    // The body is long: unrolled, it would only take more registers.
#pragma unroll 1
    for (uint32_t group; (group = weights.group()) < end;) {
      const uint32_t* words = weights.blocks();
      if constexpr (kCount == 2) {
        const B blocks[2] = {B(words, lane), B(words + kWords, lane)};
        weights.advance(kCount, kWords);
        Arithmetic::template multiply<kCodebook, kHalfBits, kCount>(blocks, shared, group - first, lane, acc);
      } else {
        const B blocks[1] = {B(words, lane)};
        weights.advance(kCount, kWords);
        Arithmetic::template multiply<kCodebook, kHalfBits, kCount>(blocks, shared, group - first, lane, acc);
      }
    }
  }
};

}  // namespace trellink
