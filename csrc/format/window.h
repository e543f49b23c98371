// From a lane's words to the 16-bit trellis states of its weights.
//
// The state of weight j is the 16 bits that end at window_end(j) of the lane's part of the tile. The
// first windows reach back into the part of the lane before (lane 0: lane 31, the stream is
// tail-biting), and where a lane owns fewer than 16 bits of a tile, into the one before that.
#pragma once

#include "format/block.h"

namespace trellink {

constexpr int kStateBits = 16;

// How many lanes back the windows of a bitrate reach.
template <int kHalfBits>
constexpr int kHistoryLanes = Block<kHalfBits>::kLaneTileBits < kStateBits ? 2 : 1;

// Whether word `word` of the lane before holds the last 16 bits of its part of some tile: the
// only words that have to be fetched from it. Where a part is shorter than that, all are needed.
template <int kHalfBits>
TRELLINK_HD constexpr bool needs_previous(int word) {
  constexpr int kBits = Block<kHalfBits>::kLaneTileBits;
  bool needed = kBits < kStateBits;
  for (int tile = 0; tile < kBlockTiles; ++tile) {
    const int end = (tile + 1) * kBits;
    needed = needed || word == (end - kStateBits) / 32 || word == (end - 1) / 32;
  }
  return needed;
}

// The kCount <= 16 bits at [kPos, kPos + kCount) of a stream of words, right-aligned.
template <int kPos, int kCount, class W>
TRELLINK_HD W stream_bits(const W* words) {
  constexpr int kWord = kPos / 32;
  constexpr int kEnd = kPos % 32 + kCount;
  if constexpr (kCount == 16 && kEnd <= 32) {
    return half_at<32 - kEnd>(words[kWord]);
  } else if constexpr (kEnd <= 32) {
    return (words[kWord] >> (32 - kEnd)) & ((1u << kCount) - 1);
  } else {
    return funnel_right<64 - kEnd>(words[kWord], words[kWord + 1]) & ((1u << kCount) - 1);
  }
}

// The 32 bits of the stream from kPos on, as far as the lane has them; what lies beyond its last
// word is undefined and never part of a window.
template <int kPos, int kHalfBits, class W>
TRELLINK_HD W stream_word(const W* words) {
  constexpr int kWord = kPos / 32;
  constexpr int kOffset = kPos % 32;
  if constexpr (kOffset == 0) {
    return words[kWord];
  } else if constexpr (kWord + 1 < kHalfBits && kOffset > 16) {
    return funnel_right<32 - kOffset>(words[kWord], words[kWord + 1]);
  } else {
    return words[kWord] << kOffset;
  }
}

// The last 16 bits before the lane's part of tile kTileIndex, right-aligned; above them undefined.
template <int kHalfBits, int kTileIndex, class W>
TRELLINK_HD W history(const W* prev, const W* prev2) {
  constexpr int kBits = Block<kHalfBits>::kLaneTileBits;
  constexpr int kStart = kTileIndex * kBits;
  if constexpr (kBits >= kStateBits) {
    constexpr int kEnd = kStart + kBits;
    // When the part ends on a word's end its last 16 bits are in place already.
    if constexpr (kEnd % 32 == 0) {
      return prev[kEnd / 32 - 1];
    } else {
      return stream_bits<kEnd - kStateBits, kStateBits>(prev);
    }
  } else {
    return (stream_bits<kStart, kBits>(prev2) << kBits) | stream_bits<kStart, kBits>(prev);
  }
}

// The states of the lane's eight weights of tile kTileIndex.
// own, prev, prev2: the block's words of this lane, of the lane before and of the one before that
// (prev2 is read only if kHistoryLanes == 2; of prev only the words that needs_previous() names).
template <int kHalfBits, int kTileIndex, class W>
TRELLINK_HD void lane_states(const W* own, const W* prev, const W* prev2, W (&states)[kLaneWeights]) {
  using B = Block<kHalfBits>;
  constexpr int kStart = kTileIndex * B::kLaneTileBits;
  const W seam = join_halves(history<kHalfBits, kTileIndex>(prev, prev2),
                             stream_word<kStart, kHalfBits>(own));
  static_for<kLaneWeights>([&](auto j) TRELLINK_LAMBDA {
    constexpr int kEnd = B::window_end(j);
    if constexpr (kEnd < kStateBits) {
      states[j] = half_at<kStateBits - kEnd>(seam);
    } else {
      states[j] = stream_bits<kStart + kEnd - kStateBits, kStateBits>(own);
    }
  });
}

}  // namespace trellink
