// A decoded block on the host: where its weights lie, and how it comes from the packed words.
//
// A weight that lane l of a warp would hold as weight j of tile t lies in
//   [column vector (j / 4) * kSubsets + l / kWidth][step 4 t + j % 4][l % kWidth].
// So a column vector's 32 steps are contiguous, and in each step the input that its elements meet
// repeats with period 4: step (t, i), element l is row 16 t + 2 (l % 4) + i % 2 + 8 (i / 2).
#pragma once

#include "format/window.h"
#include "host/weight.h"

namespace trellink {
namespace {

constexpr int kSteps = kBlockTiles * kLaneWeights / 2;
constexpr int kColumnVectors = 2 * kSubsets;

struct DecodedBlock {
  alignas(64) float values[kColumnVectors][kSteps][kWidth];

  static int row(int step, int lane) { return step / 4 * kTile + 2 * (lane % 4) + step % 2 + 8 * (step % 4 / 2); }
  static int column(int column_vector, int lane) { return lane / 4 + 8 * (column_vector / kSubsets); }
};

// Packed words on the host are [word][lane]. Here every row is preceded by its last two lanes, so
// that "the lanes before" are a load at an earlier address, for lane 0 as for any other.
template <int kHalfBits>
struct PaddedWords {
  static constexpr int kPad = 2;
  uint32_t words[kHalfBits][kPad + kLanes];

  explicit PaddedWords(const uint32_t* block) {
    for (int w = 0; w < kHalfBits; ++w, block += kLanes) {
      __builtin_memcpy(words[w], block + kLanes - kPad, kPad * sizeof(uint32_t));
      __builtin_memcpy(words[w] + kPad, block, kLanes * sizeof(uint32_t));
    }
  }

  // Word w of lanes [lane, lane + kWidth), or of those `back` lanes before.
  U32 at(int w, int lane, int back) const { return load<U32>(words[w] + kPad + lane - back); }
};

// Decodes a block of kLanes * kHalfBits words.
template <Codebook kCodebook, int kHalfBits>
void decode_block(const uint32_t* block, DecodedBlock& out) {
  const PaddedWords<kHalfBits> padded(block);
  for (int subset = 0; subset < kSubsets; ++subset) {
    U32 own[kHalfBits], prev[kHalfBits], prev2[kHalfBits];
    static_for<kHalfBits>([&](auto w) TRELLINK_LAMBDA {
      own[w] = padded.at(w, subset * kWidth, 0);
      if constexpr (needs_previous<kHalfBits>(w)) prev[w] = padded.at(w, subset * kWidth, 1);
      if constexpr (kHistoryLanes<kHalfBits> == 2) prev2[w] = padded.at(w, subset * kWidth, 2);
    });
    static_for<kBlockTiles>([&](auto tile) TRELLINK_LAMBDA {
      U32 states[kLaneWeights];
      lane_states<kHalfBits, tile>(own, prev, prev2, states);
      static_for<kLaneWeights>([&](auto j) TRELLINK_LAMBDA {
        store(out.values[j / 4 * kSubsets + subset][4 * tile + j % 4], weights_of_states<kCodebook>(states[j]));
      });
    });
  }
}

}  // namespace
}  // namespace trellink
