// Where the slots of an arena lie: all of the arena's address arithmetic.
//
// Counted in packets as the host has them, of 64 bits: places. A packet of a kernel (packet.h) takes two.
//
// arena = [parity 2][source rank][slot_packets], then the stop word: a rank that fails writes
// TRELLINK_STATE_ABORTED there in every arena, so that launches that come later do not begin, although
// what they wait for may have been sent. A tag never has that value. src/protocol/arena.rs is the same in Rust; a test
// compares the two.
#pragma once

#include "format/word.h"

namespace trellink {

struct ArenaLayout {
  uint32_t world;
  uint64_t slot_packets;

  // Index of the first packet that `source` sends in a call of this parity.
  TRELLINK_HD uint64_t slot(uint32_t parity, uint32_t source) const {
    return static_cast<uint64_t>(parity * world + source) * slot_packets;
  }
  TRELLINK_HD uint64_t half_packets() const { return world * slot_packets; }
  TRELLINK_HD uint64_t packets() const { return 2 * half_packets(); }
  // Where the stop word lies, counted in packets.
  TRELLINK_HD uint64_t stop() const { return packets(); }
};

}  // namespace trellink
