// A warp's share of the product: blocks of one strip, or of two neighbouring ones, over a chunk of K.
//
// The order of additions depends on the layer and on how the launch cuts the columns, so a row's
// result does not depend on the other rows or on its place among them.
#pragma once

#include "linear/decode.cuh"
#include "linear/shared_layout.cuh"

namespace trellink {

// kCount: strips, at most Arithmetic::kStrips.
template <class Arithmetic, int kCount>
struct StripGemm {
  const SharedLayout<Arithmetic>& shared;
  const uint32_t* blocks;  // of the segment
  uint32_t strip;          // the first of kCount
  uint32_t k_groups;       // of the shard
  uint32_t chunk;          // first group of the chunk; it lies in group 0 of the shared input
  uint32_t begin, end;     // this warp's groups: begin, begin + stride, ... < end
  uint32_t stride;
  typename Arithmetic::Accumulator (&acc)[kCount];

  // Bitrates that the other kCount serves are not compiled for this one.
  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void run() {
    if constexpr ((kHalfBits <= Arithmetic::kPairedHalfBits) == (kCount == 2)) multiply<kCodebook, kHalfBits>();
  }

 private:
  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void multiply() {
    if (begin >= end) return;
    const uint32_t lane = ptx::opaque(threadIdx.x % 32);
    const uint32_t first_strip = ptx::opaque(strip);
    // The next blocks are loaded while these are decoded, where registers allow; where they do not,
    // the other warps cover the latency.
    constexpr bool kPrefetch = kCount * kHalfBits <= Arithmetic::kPrefetchWords;
    uint32_t words[kCount][kHalfBits], next[kCount][kHalfBits];
    if (kPrefetch) load<kHalfBits>(first_strip, begin, lane, next);
    // The body is long: unrolled, it would only take more registers.
#pragma unroll 1
    for (uint32_t group = begin; group < end; group += stride) {
      if (!kPrefetch) load<kHalfBits>(first_strip, group, lane, next);
#pragma unroll
      for (int s = 0; s < kCount; ++s) static_for<kHalfBits>([&](auto w) { words[s][w] = next[s][w]; });
      if (kPrefetch && group + stride < end) load<kHalfBits>(first_strip, group + stride, lane, next);
      Arithmetic::template multiply<kCodebook, kHalfBits, kCount>(words, shared, group - chunk, lane, acc);
    }
  }

  template <int kHalfBits>
  __device__ __forceinline__ void load(uint32_t first_strip, uint32_t group, uint32_t lane,
                                       uint32_t (&words)[kCount][kHalfBits]) const {
#pragma unroll
    for (int s = 0; s < kCount; ++s) {
      const uint64_t block = static_cast<uint64_t>(first_strip + s) * k_groups + group;
      load_block<kHalfBits>(blocks + block * Block<kHalfBits>::kWords, lane, words[s]);
    }
  }
};

}  // namespace trellink
