// Where the sums of a linear's message lie in a slot: all address arithmetic of that message.
//
// A warp that finishes 128 neighbouring columns of a row has four of them a lane, which are two pairs of packets. The
// first pairs of all lanes lie together and the second ones behind them, so that what a warp writes or reads at a
// time is contiguous: over a link, only whole runs are fast.
#pragma once

#include "format/word.h"

namespace trellink {

struct SumLayout {
  // Columns that lie together.
  static constexpr uint32_t kRun = 128;
  // Packets from a pair of four neighbouring values to the other.
  static constexpr uint32_t kPairStride = kRun / 2;

  // The packets of values `value` and `value + 1` of the message, counted row by row. `value` is even.
  static TRELLINK_HD uint64_t pair(uint64_t value) {
    const uint64_t in_run = value % kRun;
    return value - in_run + in_run % 4 / 2 * kPairStride + in_run / 4 * 2;
  }
};

}  // namespace trellink
