// Where the octets of an all-reduce lie in a slot: all address arithmetic of its kernel.
//
// An octet is eight neighbouring elements. What is sent of it are 16-byte pieces, packets or plain words (bulk.cuh).
// src/plan/reduce.rs knows the sizes; a test compares.
#pragma once

#include "format/word.h"

namespace trellink {

// Elements of an octet.
constexpr uint32_t kOctet = 8;

// A run of octets of so many pieces each, counted in places of an arena from its start. Pieces of a group of 16 octets
// alternate, so that 16 threads that write the same piece of neighbouring octets write 256 neighbouring bytes.
struct OctetLayout {
  static constexpr uint32_t kGroup = 16;
  // Places from one piece of an octet to the next.
  static constexpr uint32_t kPieceStride = 2 * kGroup;

  uint32_t pieces;

  // The first piece of an octet.
  TRELLINK_HD uint64_t index(uint32_t octet) const {
    return static_cast<uint64_t>(octet / kGroup) * kPieceStride * pieces + octet % kGroup * 2;
  }
  TRELLINK_HD uint64_t packets(uint32_t octets) const {
    return static_cast<uint64_t>((octets + kGroup - 1) / kGroup) * kPieceStride * pieces;
  }
};

// The one-shot form, octets of four words: a packet has the first three words of each, then others have the fourth words of
// three neighbouring octets each. Octets are taken by warps, 32 neighbouring ones together, and a packet has fourth words
// of one warp's.
struct HalfOctetLayout {
  static constexpr uint32_t kGroup = 32, kFourths = 3;

  uint32_t octets;  // of the message

  TRELLINK_HD uint64_t threes(uint32_t octet) const { return 2 * static_cast<uint64_t>(octet); }
  // The packet that has an octet's fourth word, and which of its words that is. The octet for which it is the first sends
  // the packet.
  TRELLINK_HD uint64_t fourths(uint32_t octet) const {
    return 2 * (octets + octet / kGroup * kGroupPackets + octet % kGroup / kFourths);
  }
  static TRELLINK_HD uint32_t fourth_word(uint32_t octet) { return octet % kGroup % kFourths; }
  TRELLINK_HD uint64_t packets() const {
    return 2 * (octets + static_cast<uint64_t>((octets + kGroup - 1) / kGroup) * kGroupPackets);
  }

 private:
  static constexpr uint64_t kGroupPackets = (kGroup + kFourths - 1) / kFourths;
};

// The one-shot form, octets of eight words: three packets, of which the last one's last word is empty.
struct FloatOctetLayout : OctetLayout {
  static constexpr uint32_t kPackets = 3;
  TRELLINK_HD FloatOctetLayout() : OctetLayout{kPackets} {}
};

// The two-shot form: every rank owns a part of the message, every part is cut into the same number of
// chunks. The slot of a source holds, in this order: a flag for each chunk of its contributions, a flag
// for each chunk of its results, its contributions to the receiver's part, the results of its own part.
struct TwoShotLayout {
  uint32_t world;
  uint32_t octets;  // of the message
  uint32_t chunks;
  OctetLayout contribution;
  OctetLayout result;

  // First octet of the message that `owner` owns; `world` gives the end of the last part.
  TRELLINK_HD uint32_t part(uint32_t owner) const {
    return static_cast<uint32_t>(static_cast<uint64_t>(octets) * owner / world);
  }
  // First octet of a chunk, from the start of its part; `chunks` gives the end of the last chunk.
  TRELLINK_HD uint32_t chunk(uint32_t owner, uint32_t chunk) const {
    return static_cast<uint32_t>(static_cast<uint64_t>(part(owner + 1) - part(owner)) * chunk / chunks);
  }
  TRELLINK_HD uint64_t contribution_flag(uint32_t chunk) const { return 2 * static_cast<uint64_t>(chunk); }
  TRELLINK_HD uint64_t result_flag(uint32_t chunk) const { return 2 * (static_cast<uint64_t>(chunks) + chunk); }
  TRELLINK_HD uint64_t contributions() const { return 4 * static_cast<uint64_t>(chunks); }
  TRELLINK_HD uint64_t results() const { return contributions() + contribution.packets(largest_part()); }
  // What a slot must hold.
  TRELLINK_HD uint64_t packets() const { return results() + result.packets(largest_part()); }

 private:
  TRELLINK_HD uint32_t largest_part() const { return (octets + world - 1) / world; }
};

}  // namespace trellink
