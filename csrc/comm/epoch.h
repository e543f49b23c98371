// Epochs: the number of an exchange, modulo 2^32. src/protocol/epoch.rs is the same in Rust.
#pragma once

#include "format/word.h"

namespace trellink {

enum class Arrival : int { kStale = -1, kCurrent = 0, kAhead = 1 };

// Buffers alternate between the two halves of an arena.
TRELLINK_HD uint32_t epoch_parity(uint32_t epoch) { return epoch & 1u; }

// How far `tag` is ahead of `epoch`, right across wrap-around as long as the two are less than
// 2^31 calls apart. Scrubbing (exchange.cuh) keeps every tag in memory within that distance.
TRELLINK_HD int32_t epoch_distance(uint32_t epoch, uint32_t tag) {
  return static_cast<int32_t>(tag - epoch);
}

TRELLINK_HD Arrival epoch_classify(uint32_t epoch, uint32_t tag) {
  const int32_t distance = epoch_distance(epoch, tag);
  return distance < 0 ? Arrival::kStale : distance == 0 ? Arrival::kCurrent : Arrival::kAhead;
}

// Whether an arena half is due for scrubbing in this epoch. Two consecutive epochs of every period
// are: one of each parity.
TRELLINK_HD bool epoch_scrubs(uint32_t epoch, uint32_t scrub_mask) { return (epoch & scrub_mask) <= 1u; }

// The tag of what a rank posts for its own CTAs (exchange.cuh). It must look stale to every later call, and
// no packet that lies in the arena may look posted: tags there are at most a scrub period old, which is
// at most 2^29 calls.
TRELLINK_HD uint32_t epoch_posted(uint32_t epoch) { return epoch - (1u << 30); }

}  // namespace trellink
