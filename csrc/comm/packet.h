// The packet: 96 bits of data that carry their own arrival flag.
//
// A packet is written and read as one 128-bit access, so data and tag arrive together and no fence or sentinel value is
// needed: NaN, -0 and infinities pass. It takes two places of an arena, which are counted in 64 bits. Everything that
// comes to lie in an arena has its tag in the last word of a packet's place, or no tag, where nobody polls (bulk.cuh).
// The host's packets (src/protocol/packet.rs) have 32 bits of data: they differ in nothing else.
#pragma once

#include "format/word.h"

namespace trellink {

struct Packet {
  uint64_t low, high;  // {words 0 and 1}, {word 2, tag}

  static TRELLINK_HD Packet of(uint32_t a, uint32_t b, uint32_t c, uint32_t tag) {
    return {static_cast<uint64_t>(b) << 32 | a, static_cast<uint64_t>(tag) << 32 | c};
  }
  static constexpr uint32_t kWords = 3;
  // Places that it takes.
  static constexpr uint32_t kPlaces = 2;

  TRELLINK_HD uint32_t word(uint32_t i) const {
    return static_cast<uint32_t>(i < 2 ? low >> 32 * i : high);
  }
  TRELLINK_HD uint32_t tag() const { return static_cast<uint32_t>(high >> 32); }
};

}  // namespace trellink
