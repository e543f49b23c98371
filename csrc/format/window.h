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

// Whether the windows of tile `tile` reach into word `word` of the lane before: it holds some of the
// last 16 bits of that lane's part of the tile, or any of it where a part is shorter than that.
template <int kHalfBits>
TRELLINK_HD constexpr bool needs_previous(int tile, int word) {
  constexpr int kBits = Block<kHalfBits>::kLaneTileBits;
  const int end = (tile + 1) * kBits;
  const int first = kBits < kStateBits ? end - kBits : end - kStateBits;
  return word >= first / 32 && word <= (end - 1) / 32;
}

// The same for the windows of any tile.
template <int kHalfBits>
TRELLINK_HD constexpr bool needs_previous(int word) {
  bool needed = false;
  for (int tile = 0; tile < kBlockTiles; ++tile) needed = needed || needs_previous<kHalfBits>(tile, word);
  return needed;
}

// A word of a stream that contains its bits [kPos, kPos + 16), and where in the word they end.
template <int kPos>
struct HalfPlace {
  static constexpr int kWord = kPos / 32;
  // Bits that cross into the next word lie in the word made of this one's low and that one's high half.
  static constexpr bool kCrosses = kPos % 32 > 16;
  static constexpr int kShift = (kCrosses ? 32 : 16) - kPos % 32;

  template <class W>
  static TRELLINK_HD W word(const W* words) {
    if constexpr (kCrosses) {
      return join_halves<0, 16>(words[kWord], words[kWord + 1]);
    } else {
      return words[kWord];
    }
  }
};

// The kCount < 16 bits at [kPos, kPos + kCount) of a stream, right-aligned.
template <int kPos, int kCount, class W>
TRELLINK_HD W stream_bits(const W* words) {
  constexpr int kWord = kPos / 32;
  constexpr int kEnd = kPos % 32 + kCount;
  if constexpr (kEnd <= 32) {
    return (words[kWord] >> (32 - kEnd)) & ((1u << kCount) - 1);
  } else {
    return funnel_right<64 - kEnd>(words[kWord], words[kWord + 1]) & ((1u << kCount) - 1);
  }
}

// The word whose high half are the 16 bits before the lane's part of tile kTileIndex and whose low
// half are the part's first 16: every window that reaches back lies in it. Of a part of fewer than 16
// bits, what follows it in the stream stands behind it (or zeros), and no such window ends there.
template <int kHalfBits, int kTileIndex, class W>
TRELLINK_HD W seam(const W* own, const W* prev, const W* prev2) {
  constexpr int kBits = Block<kHalfBits>::kLaneTileBits;
  constexpr int kStart = kTileIndex * kBits;
  constexpr int kLast = 32 * kHalfBits - kStateBits;
  if constexpr (kBits >= kStateBits) {
    using Before = HalfPlace<kStart + kBits - kStateBits>;
    using First = HalfPlace<kStart>;
    return join_halves<Before::kShift, First::kShift>(Before::word(prev), First::word(own));
  } else {
    const W before = (stream_bits<kStart, kBits>(prev2) << kBits) | stream_bits<kStart, kBits>(prev);
    if constexpr (kStart <= kLast) {
      using First = HalfPlace<kStart>;
      return join_halves<0, First::kShift>(before, First::word(own));
    } else {
      return (before << 16) | (stream_bits<kStart, kBits>(own) << (kStateBits - kBits));
    }
  }
}

// Where the windows of a lane's part of a tile lie, in bits of a stream: the lane's words of the block, behind one word of
// which the lane before has the bits, so that nothing lies before 0.
template <int kHalfBits, int kTileIndex>
struct TileWindows {
  using B = Block<kHalfBits>;
  static constexpr int kBits = B::kLaneTileBits;
  static constexpr int kStart = 32 + kTileIndex * kBits;
  // Parts that are whole words: the last word of the lane before is followed by the lane's first, without a seam.
  static constexpr bool kWhole = kBits % 32 == 0;

  static constexpr TRELLINK_HD int first(int j) { return kStart + B::window_end(j) - kStateBits; }
  // Whether window j reaches back over a seam; the others lie in words that follow each other.
  static constexpr TRELLINK_HD bool in_seam(int j) { return !kWhole && B::window_end(j) < kStateBits; }

  // A view is the 32 bits from some bit on, which serve windows that begin there or whole bytes later. This is where that
  // of window j begins: as far in front as leaves every window in one.
  static constexpr TRELLINK_HD int view(int j) {
    int begin = first(j);
    for (int i = 0, last = -1; i <= j; ++i) {
      if (in_seam(i) || (first(j) - first(i)) % 8 != 0) continue;
      if (last < 0 || first(i) + kStateBits > last + 32) last = first(i);
      begin = last;
    }
    return begin;
  }
  // Whether windows of a view reach into a second word.
  static constexpr TRELLINK_HD bool crosses(int view_begin) {
    for (int i = 0; i < kLaneWeights; ++i) {
      if (!in_seam(i) && view(i) == view_begin && first(i) + kStateBits > view_begin / 32 * 32 + 32) return true;
    }
    return false;
  }

  template <int kWord, class W>
  static TRELLINK_HD W word(const W* own, const W* prev) {
    if constexpr (kWhole && kWord < kStart / 32) {
      return prev[kWord - 1 + kBits / 32];
    } else {
      return own[kWord - 1];
    }
  }
};

// The state of weight kWeight of a tile, whose window does not reach back over a seam.
template <int kHalfBits, int kTileIndex, int kWeight, class W>
TRELLINK_HD W stream_state(const W* own, const W* prev) {
  using Windows = TileWindows<kHalfBits, kTileIndex>;
  constexpr int kFirst = Windows::first(kWeight), kView = Windows::view(kWeight);
  if constexpr (kFirst % 8 != 0 && Windows::crosses(kView)) {
    constexpr int kWord = kView / 32;
    const W view = funnel_right<32 - kView % 32>(Windows::template word<kWord>(own, prev),
                                                 Windows::template word<kWord + 1>(own, prev));
    return state_at<kView + 16 - kFirst>(view);
  } else if constexpr (constexpr int kWord = kFirst / 32; kFirst % 32 <= 16) {
    return state_at<16 - kFirst % 32>(Windows::template word<kWord>(own, prev));
  } else {
    return state_across(Windows::template word<kWord>(own, prev), Windows::template word<kWord + 1>(own, prev));
  }
}

// The states of the lane's eight weights of tile kTileIndex.
// own, prev, prev2: the block's words of this lane, of the lane before and of the one before that
// (of these only the words that needs_previous() names, and prev2 only if kHistoryLanes == 2).
template <int kHalfBits, int kTileIndex, class W>
TRELLINK_HD void lane_states(const W* own, const W* prev, const W* prev2, W (&states)[kLaneWeights]) {
  using Windows = TileWindows<kHalfBits, kTileIndex>;
  [[maybe_unused]] W joined;
  if constexpr (!Windows::kWhole) joined = seam<kHalfBits, kTileIndex>(own, prev, prev2);
  static_for<kLaneWeights>([&](auto j) TRELLINK_LAMBDA {
    if constexpr (Windows::in_seam(j)) {
      states[j] = state_at<kStateBits - Block<kHalfBits>::window_end(j)>(joined);
    } else {
      states[j] = stream_state<kHalfBits, kTileIndex, j>(own, prev);
    }
  });
}

}  // namespace trellink
