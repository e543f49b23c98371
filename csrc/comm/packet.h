// The packet: 32 bits of data that carry their own arrival flag.
//
// A packet is written and read as one 64-bit access, so data and tag arrive together and no fence
// or sentinel value is needed: NaN, -0 and infinities pass. src/protocol/packet.rs is the same in Rust.
#pragma once

#include "format/word.h"

namespace trellink {

// {data in the low 32 bits, tag in the high 32 bits}.
TRELLINK_HD uint64_t packet_pack(uint32_t data, uint32_t tag) {
  return static_cast<uint64_t>(tag) << 32 | data;
}
TRELLINK_HD uint32_t packet_data(uint64_t packet) { return static_cast<uint32_t>(packet); }
TRELLINK_HD uint32_t packet_tag(uint64_t packet) { return static_cast<uint32_t>(packet >> 32); }

}  // namespace trellink
