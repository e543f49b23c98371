// An octet of the input as packets, which carry its words as they are: that is exact, whatever the sum is rounded to.
#pragma once

#include "comm/exchange.cuh"
#include "reduce/octet.cuh"

namespace trellink {

// By the words of an octet. `kPackets` have all of them, the first at `index(octet)`, the others `stride(octet)` apart;
// word() finds a word in what these hold.
template <uint32_t kWords>
class OctetPackets;

// Four words: one packet, and a third of another.
template <>
class OctetPackets<kHalfWords> {
 public:
  static constexpr uint32_t kPackets = 2;

  __device__ explicit OctetPackets(uint32_t octets) : layout_{octets} {}

  // Sends an octet to all peers, if it exists. By all lanes of a warp, which have neighbouring octets, the first of them
  // a multiple of 32.
  __device__ void push(const Exchange& exchange, bool exists, uint32_t octet, const uint32_t (&words)[kHalfWords]) const {
    const uint32_t fourth = words[3];
    const uint32_t second = __shfl_down_sync(0xffffffffu, fourth, 1), third = __shfl_down_sync(0xffffffffu, fourth, 2);
    if (!exists) return;
    exchange.push_to_peers(layout_.threes(octet), words[0], words[1], words[2]);
    if (HalfOctetLayout::fourth_word(octet) == 0) exchange.push_to_peers(layout_.fourths(octet), fourth, second, third);
  }

  __device__ uint64_t index(uint32_t octet) const { return layout_.threes(octet); }
  __device__ uint64_t stride(uint32_t octet) const { return layout_.fourths(octet) - layout_.threes(octet); }

  static __device__ uint32_t word(const uint32_t (&found)[kPackets * Packet::kWords], uint32_t octet, uint32_t i) {
    if (i < Packet::kWords) return found[i];
    const uint32_t which = HalfOctetLayout::fourth_word(octet);
    return which == 0 ? found[3] : which == 1 ? found[4] : found[5];
  }

 private:
  HalfOctetLayout layout_;
};

// Eight words: three packets.
template <>
class OctetPackets<kFloatWords> {
 public:
  static constexpr uint32_t kPackets = FloatOctetLayout::kPackets;

  __device__ explicit OctetPackets(uint32_t) {}

  __device__ void push(const Exchange& exchange, bool exists, uint32_t octet, const uint32_t (&words)[kFloatWords]) const {
    if (!exists) return;
#pragma unroll
    for (uint32_t p = 0; p < kPackets; ++p) {
      const uint32_t* three = words + p * Packet::kWords;
      const uint32_t last = p + 1 < kPackets ? three[2] : 0;
      exchange.push_to_peers(index(octet) + p * stride(octet), three[0], three[1], last);
    }
  }

  __device__ uint64_t index(uint32_t octet) const { return FloatOctetLayout().index(octet); }
  __device__ uint64_t stride(uint32_t) const { return FloatOctetLayout::kPieceStride; }

  static __device__ uint32_t word(const uint32_t (&found)[kPackets * Packet::kWords], uint32_t, uint32_t i) {
    return found[i];
  }
};

}  // namespace trellink
