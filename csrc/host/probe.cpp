// The device code's layout, packet and epoch arithmetic, for the tests that compare it with the
// Rust side's. Nothing else calls these.
#include <cstdint>

#include "comm/arena_layout.h"
#include "comm/epoch.h"
#include "comm/octet_layout.h"
#include "comm/packet.h"
#include "comm/sum_layout.h"
#include "format/dispatch.h"

namespace {

using trellink::Arrival;
using trellink::ArenaLayout;
using trellink::Block;
using trellink::Codebook;

struct WordIndex {
  int lane, word, index = -1;

  template <Codebook, int kHalfBits>
  void run() {
    if (lane >= 0 && lane < trellink::kLanes && word >= 0 && word < Block<kHalfBits>::kWordsPerLane) {
      index = Block<kHalfBits>::word_index(lane, word);
    }
  }
};

struct WindowEnd {
  int weight, end = -1;

  template <Codebook, int kHalfBits>
  void run() {
    end = Block<kHalfBits>::window_end(weight);
  }
};

}  // namespace

extern "C" {

// Whether kernels exist for the pair.
bool trellink_probe_has_format(uint32_t codebook, uint32_t half_bits) {
  WindowEnd any{0};
  return trellink::AllCodebooks::run(codebook, half_bits, any);
}

// -1 for what is outside of the block or the format. mul1 has all bitrates.
int32_t trellink_probe_word_index(uint32_t half_bits, int32_t lane, int32_t word) {
  WordIndex probe{lane, word};
  trellink::AllCodebooks::run(static_cast<uint32_t>(Codebook::kMul1), half_bits, probe);
  return probe.index;
}

int32_t trellink_probe_window_end(uint32_t half_bits, int32_t weight) {
  WindowEnd probe{weight};
  trellink::AllCodebooks::run(static_cast<uint32_t>(Codebook::kMul1), half_bits, probe);
  return probe.end;
}

// Of the packet that lies in two places.
uint32_t trellink_probe_packet_tag(uint64_t low, uint64_t high) { return trellink::Packet{low, high}.tag(); }

uint64_t trellink_probe_sum_run(uint64_t run) { return trellink::SumLayout::run(run); }
// Of a column of a run: its packet's first place, and the word there.
uint32_t trellink_probe_sum_place(uint32_t column) {
  const uint32_t quad = column / 4;
  return column % 4 < 3 ? trellink::SumLayout::threes(quad) : trellink::SumLayout::fourth(quad);
}
uint32_t trellink_probe_sum_word(uint32_t column) {
  return column % 4 < 3 ? column % 4 : trellink::SumLayout::fourth_word(column / 4);
}

uint32_t trellink_probe_epoch_parity(uint32_t epoch) { return trellink::epoch_parity(epoch); }
uint32_t trellink_probe_tag_pack(uint32_t epoch, uint32_t operation) { return trellink::tag_pack(epoch, operation); }
int32_t trellink_probe_tag_distance(uint32_t expected, uint32_t tag) { return trellink::tag_distance(expected, tag); }
// -1 stale, 0 current, 1 ahead, 2 foreign.
int32_t trellink_probe_tag_classify(uint32_t expected, uint32_t tag) {
  return static_cast<int32_t>(trellink::tag_classify(expected, tag));
}
bool trellink_probe_tag_is_stale(uint32_t expected, uint32_t tag) { return trellink::tag_is_stale(expected, tag); }
bool trellink_probe_epoch_scrubs(uint32_t epoch, uint32_t scrub_mask) {
  return trellink::epoch_scrubs(epoch, scrub_mask);
}

uint64_t trellink_probe_arena_slot(uint32_t world, uint64_t slot_packets, uint32_t parity, uint32_t source) {
  return ArenaLayout{world, slot_packets}.slot(parity, source);
}
uint64_t trellink_probe_arena_packets(uint32_t world, uint64_t slot_packets) {
  return ArenaLayout{world, slot_packets}.packets();
}
uint64_t trellink_probe_arena_stop(uint32_t world, uint64_t slot_packets) {
  return ArenaLayout{world, slot_packets}.stop();
}

uint64_t trellink_probe_octet_index(uint32_t pieces, uint32_t octet) {
  return trellink::OctetLayout{pieces}.index(octet);
}
uint64_t trellink_probe_octet_packets(uint32_t pieces, uint32_t octets) {
  return trellink::OctetLayout{pieces}.packets(octets);
}
// The packet of an octet's first three words, or of its fourth, in a message of so many octets; and its places in all.
uint64_t trellink_probe_half_threes(uint32_t octets, uint32_t octet) {
  return trellink::HalfOctetLayout{octets}.threes(octet);
}
uint64_t trellink_probe_half_fourths(uint32_t octets, uint32_t octet) {
  return trellink::HalfOctetLayout{octets}.fourths(octet);
}
uint32_t trellink_probe_half_fourth_word(uint32_t octet) { return trellink::HalfOctetLayout::fourth_word(octet); }
uint64_t trellink_probe_half_packets(uint32_t octets) { return trellink::HalfOctetLayout{octets}.packets(); }
uint64_t trellink_probe_two_shot_packets(uint32_t world, uint32_t octets, uint32_t chunks, uint32_t contribution_pieces,
                                         uint32_t result_pieces) {
  return trellink::TwoShotLayout{world, octets, chunks, {contribution_pieces}, {result_pieces}}.packets();
}
// First octet of a chunk, from the start of the message; the end of the part for `chunks`.
uint32_t trellink_probe_two_shot_chunk(uint32_t world, uint32_t octets, uint32_t chunks, uint32_t owner,
                                       uint32_t chunk) {
  const trellink::TwoShotLayout layout{world, octets, chunks, {1}, {1}};
  return layout.part(owner) + layout.chunk(owner, chunk);
}

}  // extern "C"
