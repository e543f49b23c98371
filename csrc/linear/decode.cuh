// A lane's words of a block, and its weights of a tile.
#pragma once

#include "format/dispatch.h"
#include "format/window.h"
#include "ptx/ptx.cuh"

namespace trellink {

// A lane's words of a block, in memory of any kind, by as few loads as its order allows.
template <int kHalfBits>
__device__ __forceinline__ void read_words(const uint32_t* block, uint32_t lane, uint32_t (&words)[kHalfBits]) {
  using B = Block<kHalfBits>;
  static_for<kHalfBits / 4>([&](auto chunk) {
    const uint4 v = *reinterpret_cast<const uint4*>(block + B::word_index(lane, 4 * chunk));
    words[4 * chunk] = v.x;
    words[4 * chunk + 1] = v.y;
    words[4 * chunk + 2] = v.z;
    words[4 * chunk + 3] = v.w;
  });
  constexpr int kFull = kHalfBits / 4 * 4;
  if constexpr (kHalfBits % 4 >= 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(block + B::word_index(lane, kFull));
    words[kFull] = v.x;
    words[kFull + 1] = v.y;
  }
  if constexpr (kHalfBits % 2 == 1) words[kHalfBits - 1] = block[B::word_index(lane, kHalfBits - 1)];
}

// A lane's words of a block, and those of the lanes before that its windows reach into.
template <int kHalfBits>
struct LaneBlock {
  uint32_t own[kHalfBits];
  uint32_t prev[kHalfBits];
  uint32_t prev2[kHalfBits];

  __device__ __forceinline__ LaneBlock(const uint32_t* block, uint32_t lane) {
    read_words(block, lane, own);
    read_words(block, (lane + kLanes - 1) % kLanes, prev);
    if constexpr (kHistoryLanes<kHalfBits> == 2) read_words(block, (lane + kLanes - 2) % kLanes, prev2);
  }

  // The words that the codebook makes of the lane's eight states of a tile.
  template <Codebook kCodebook, int kTileIndex>
  __device__ __forceinline__ void scrambled(uint32_t (&x)[kLaneWeights]) const {
    lane_states<kHalfBits, kTileIndex>(own, prev, prev2, x);
    static_for<kLaneWeights>([&](auto j) { x[j] = scramble<kCodebook>(x[j]); });
  }
};

// The lane's weights as fp16: the A operand of mma.m16n8k16 with output channels as rows. Lane l's
// eight weights are exactly what lane l holds of it, so no weight changes lanes.
template <Codebook kCodebook>
__device__ __forceinline__ void form_weights(const uint32_t (&x)[kLaneWeights], uint32_t (&a)[4]) {
  a[0] = weight_pair<kCodebook>(x[0], x[1]);
  a[2] = weight_pair<kCodebook>(x[2], x[3]);
  a[1] = weight_pair<kCodebook>(x[4], x[5]);
  a[3] = weight_pair<kCodebook>(x[6], x[7]);
}

}  // namespace trellink
