// Where the sums of a linear's message lie in a slot: all address arithmetic of that message.
//
// A packet holds three sums. A warp that finishes 128 neighbouring columns of a row, a run, has four of them a lane, a
// quad. The packets with the first three of each quad lie together, in the order of lanes, and behind them, for each
// strip of 16 columns, two packets with the fourths of its quads: three and one. So what a warp writes or reads at a time is
// contiguous (over a link, only whole runs are fast), and who has a strip alone can send it.
//
// Behind the message lie packets that the CTAs of a rank post for each other, one for each run, in its own slot of its own
// arena. They lie side by side, for a warp reads those of a whole row. Slots have a place for each value, of which a message
// takes three quarters and its posts, two copies, a 32nd.
#pragma once

#include "comm/packet.h"

namespace trellink {

struct SumLayout {
  // Columns that lie together, and those of a strip.
  static constexpr uint32_t kRun = 128, kStrip = 16;
  static constexpr uint32_t kQuads = kRun / 4, kStripQuads = kStrip / 4, kStrips = kRun / kStrip;

  // The first place of a run of the message, counted row by row.
  static TRELLINK_HD uint64_t run(uint64_t run) { return run * (kQuads + 2 * kStrips) * Packet::kPlaces; }
  // Behind the message, copies of the posts, so that not all who read them read the same lines. From the first post of a
  // copy, that of a run.
  static constexpr uint32_t kPostCopies = 2;
  static TRELLINK_HD uint32_t post(uint32_t run) { return run * Packet::kPlaces; }
  static_assert((kQuads + 2 * kStrips + kPostCopies) * Packet::kPlaces <= kRun, "a slot has a place for each value");

  // From the first place of a run, the packet with the first three sums of a quad.
  static TRELLINK_HD uint32_t threes(uint32_t quad) { return quad * Packet::kPlaces; }
  // The packet with its fourth, and which word that is.
  static TRELLINK_HD uint32_t fourth(uint32_t quad) {
    return (kQuads + quad / kStripQuads * 2 + quad % kStripQuads / Packet::kWords) * Packet::kPlaces;
  }
  static TRELLINK_HD uint32_t fourth_word(uint32_t quad) { return quad % kStripQuads % Packet::kWords; }
};

}  // namespace trellink
