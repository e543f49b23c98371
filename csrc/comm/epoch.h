// Epochs, the numbers of exchanges modulo 2^32, and tags, which packets carry of them.
// src/protocol/epoch.rs is the same in Rust.
//
// A tag is {operation in the low 16 bits, epoch modulo 2^16 in the high 16 bits}. The operation is a digest of
// what the call is (src/protocol/operation.rs), so that a packet of another call is never taken for one of this.
#pragma once

#include "format/word.h"

namespace trellink {

enum class Arrival : int { kStale = -1, kCurrent = 0, kAhead = 1, kForeign = 2 };

// Buffers alternate between the two halves of an arena.
TRELLINK_HD uint32_t epoch_parity(uint32_t epoch) { return epoch & 1u; }

TRELLINK_HD uint32_t tag_pack(uint32_t epoch, uint32_t operation) { return epoch << 16 | operation; }

// How many epochs `tag` is ahead of `expected`, right across wrap-around as long as the two are less than
// 2^15 calls apart. Scrubbing (exchange.cuh) keeps every tag in memory within that distance.
TRELLINK_HD int32_t tag_distance(uint32_t expected, uint32_t tag) {
  return static_cast<int16_t>((tag >> 16) - (expected >> 16));
}

TRELLINK_HD Arrival tag_classify(uint32_t expected, uint32_t tag) {
  const int32_t distance = tag_distance(expected, tag);
  if (distance != 0) return distance < 0 ? Arrival::kStale : Arrival::kAhead;
  return tag == expected ? Arrival::kCurrent : Arrival::kForeign;
}

// Whether a tag other than `expected` is of an earlier call: the poll's form of tag_classify, a subtraction and
// a comparison. All tags of a half have one parity, so another epoch is two or more away, further than two
// operations can be: of the last call but one at most -2 * 2^16 + 2^16 - 1, of this one at least -(2^16 - 1).
TRELLINK_HD bool tag_is_stale(uint32_t expected, uint32_t tag) {
  return static_cast<int32_t>(tag - expected) < -0x10000;
}

// Whether an arena half is due for scrubbing in this epoch. Two consecutive epochs of every period
// are: one of each parity.
TRELLINK_HD bool epoch_scrubs(uint32_t epoch, uint32_t scrub_mask) { return (epoch & scrub_mask) <= 1u; }

// The tag of what a rank posts for its own CTAs (exchange.cuh) in the call whose packets are tagged `tag`: that
// of the same operation 2^14 calls ago. It must look stale to every later call, and no packet that lies in the
// arena may look posted: tags there are at most a scrub period old, which is at most 2^13 calls.
TRELLINK_HD uint32_t tag_posted(uint32_t tag) { return tag - (1u << 30); }

}  // namespace trellink
