// Decode a block of weights and multiply it with the shared input.
//
// The decoded tile is the A operand with output channels as rows: lane l's eight weights are what
// lane l of mma.m16n8k16 holds of it, so no weight changes lanes. Weights are formed as fp16, bit
// for bit those of the format; a group of 128 is summed in f32 by the tensor core, then scaled and
// added to the accumulator in f32. The order of additions depends on the layer and the launch's
// shape alone, so a row's result does not depend on the other rows or on its place among them.
#pragma once

#include "format/dispatch.h"
#include "format/window.h"
#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// This lane's words of a block.
template <int kHalfBits>
__device__ __forceinline__ void load_block(const uint32_t* block, uint32_t lane, uint32_t (&words)[kHalfBits]) {
  using B = Block<kHalfBits>;
  static_for<kHalfBits / 4>([&](auto chunk) {
    const uint4 v = ptx::ld_stream_v4(block + B::word_index(lane, 4 * chunk));
    words[4 * chunk] = v.x;
    words[4 * chunk + 1] = v.y;
    words[4 * chunk + 2] = v.z;
    words[4 * chunk + 3] = v.w;
  });
  constexpr int kFull = kHalfBits / 4 * 4;
  if constexpr (kHalfBits % 4 >= 2) {
    const uint2 v = ptx::ld_stream_v2(block + B::word_index(lane, kFull));
    words[kFull] = v.x;
    words[kFull + 1] = v.y;
  }
  if constexpr (kHalfBits % 2 == 1) {
    words[kHalfBits - 1] = ptx::ld_stream(block + B::word_index(lane, kHalfBits - 1));
  }
}

// The words of the lanes before that some window of this lane reaches into.
template <int kHalfBits>
struct History {
  uint32_t prev[kHalfBits];
  uint32_t prev2[kHalfBits];

  __device__ __forceinline__ History(const uint32_t (&own)[kHalfBits], uint32_t lane) {
    static_for<kHalfBits>([&](auto w) {
      if constexpr (needs_previous<kHalfBits>(w)) {
        prev[w] = __shfl_sync(0xffffffffu, own[w], (lane + kLanes - 1) % kLanes);
      }
      if constexpr (kHistoryLanes<kHalfBits> == 2) {
        prev2[w] = __shfl_sync(0xffffffffu, own[w], (lane + kLanes - 2) % kLanes);
      }
    });
  }
};

// This lane's eight weights of one tile, as the A operand of mma.m16n8k16.
template <Codebook kCodebook, int kHalfBits, int kTileIndex>
__device__ __forceinline__ void decode_tile(const uint32_t (&own)[kHalfBits], const History<kHalfBits>& history,
                                            uint32_t (&a)[4]) {
  uint32_t s[kLaneWeights];
  lane_states<kHalfBits, kTileIndex>(own, history.prev, history.prev2, s);
  a[0] = weight_pair<kCodebook>(s[0], s[1]);
  a[2] = weight_pair<kCodebook>(s[2], s[3]);
  a[1] = weight_pair<kCodebook>(s[4], s[5]);
  a[3] = weight_pair<kCodebook>(s[6], s[7]);
}

// acc[b] += this block * group `group` of the shared input, for every 8 tokens b.
template <Codebook kCodebook, int kHalfBits, int kTokenBlocks>
__device__ __forceinline__ void multiply_block(const uint32_t (&own)[kHalfBits],
                                               const SharedLayout<kTokenBlocks>& shared, uint32_t group,
                                               uint32_t lane, float (&acc)[kTokenBlocks][4]) {
  const History<kHalfBits> history(own, lane);
  const uint32_t row = lane / kQuads, quad = lane % kQuads;
  float part[kTokenBlocks][4] = {};
  static_for<kBlockTiles>([&](auto tile) {
    uint32_t a[4];
    decode_tile<kCodebook, kHalfBits, tile>(own, history, a);
#pragma unroll
    for (int n = 0; n < kTokenBlocks; ++n) {
      const uint32_t token = n * kMmaTokens + row;
      // Columns without a token must not bring NaN from uninitialised memory into the MMA.
      uint2 b = make_uint2(0, 0);
      if (token < shared.tokens) b = *shared.input(group, tile, token, quad);
      ptx::mma_m16n8k16_f16(part[n], a, b.x, b.y);
    }
  });
#pragma unroll
  for (int n = 0; n < kTokenBlocks; ++n) {
    const float2 scale = *reinterpret_cast<const float2*>(shared.scale(group, n * kMmaTokens + 2 * quad));
#pragma unroll
    for (int i = 0; i < 4; ++i) acc[n][i] = __fmaf_rn(i % 2 ? scale.y : scale.x, part[n][i], acc[n][i]);
  }
}

// A warp's share of one chunk of K: blocks of one strip, every `stride`-th group.
template <int kTokenBlocks>
struct StripGemm {
  const SharedLayout<kTokenBlocks>& shared;
  const uint32_t* blocks;  // of the segment
  uint32_t strip;
  uint32_t k_groups;      // of the shard
  uint32_t chunk_begin;   // first group of the chunk; it lies in group 0 of the shared input
  uint32_t begin, end;    // this warp's groups: begin, begin + stride, ... < end
  uint32_t stride;
  float (&acc)[kTokenBlocks][4];

  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void run() {
    constexpr uint64_t kWords = Block<kHalfBits>::kWords;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t* first = blocks + static_cast<uint64_t>(strip) * k_groups * kWords;
    if (begin >= end) return;
    // The next block is loaded while this one is decoded, where registers allow; where they do not,
    // the other warps cover the latency.
    constexpr bool kPrefetch = kHalfBits + 8 * kTokenBlocks <= 40;
    uint32_t words[kHalfBits], next[kHalfBits];
    if (kPrefetch) load_block<kHalfBits>(first + begin * kWords, lane, next);
    for (uint32_t group = begin; group < end; group += stride) {
      if (!kPrefetch) load_block<kHalfBits>(first + group * kWords, lane, next);
      static_for<kHalfBits>([&](auto w) { words[w] = next[w]; });
      if (kPrefetch && group + stride < end) load_block<kHalfBits>(first + (group + stride) * kWords, lane, next);
      multiply_block<kCodebook, kHalfBits, kTokenBlocks>(words, shared, group - chunk_begin, lane, acc);
    }
  }
};

}  // namespace trellink
