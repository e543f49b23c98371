// A block: the 128 (K) x 16 (N) weights that a warp decodes at a time, in the order it reads them.
//
// Lane l owns weights 8l .. 8l+7 of each of the block's eight 16x16 tiles. In a tile's bit stream
// these are 4*half_bits consecutive bits; over eight tiles they fill half_bits u32 words, first bit
// most significant. Words are stored in chunks of 4, 4, ..., 2, 1 words a lane, 32 lanes to a chunk,
// so that a warp's load is contiguous and as wide as the bitrate allows.
// src/format/layout.rs is the same map in Rust; a test compares the two.
#pragma once

#include "format/word.h"

namespace trellink {

constexpr int kGroup = 128;         // channels mixed by the transform, and K of a block
constexpr int kTile = 16;           // edge of a tile
constexpr int kLanes = 32;          // lanes that share a tile
constexpr int kLaneWeights = 8;     // weights of a tile that one lane owns
constexpr int kBlockTiles = kGroup / kTile;

// kHalfBits: twice the bits per weight, and the u32 words a lane owns in a block.
template <int kHalfBits>
struct Block {
  static_assert(kHalfBits >= 2 && kHalfBits <= 16, "1 to 8 bits per weight");
  static constexpr int kWordsPerLane = kHalfBits;
  static constexpr int kWords = kLanes * kHalfBits;
  static constexpr int kLaneTileBits = 4 * kHalfBits;

  // Index in the block of a lane's word.
  static TRELLINK_HD constexpr int word_index(int lane, int word) {
    constexpr int kFull = kHalfBits / 4 * 4;
    if (word < kFull) return (word / 4 * kLanes + lane) * 4 + word % 4;
    constexpr int kPairs = kHalfBits % 4 >= 2 ? 2 : 0;
    if (word < kFull + kPairs) return kFull * kLanes + lane * 2 + (word - kFull);
    return (kFull + kPairs) * kLanes + lane;
  }

  // Where the window of the lane's weight j ends, in bits from the start of the lane's part of a tile.
  static TRELLINK_HD constexpr int window_end(int j) { return (j + 1) * kHalfBits / 2; }
};

}  // namespace trellink
