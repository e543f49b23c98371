// A packet in memory that devices share: one access.
#pragma once

#include "comm/packet.h"
#include "ptx/ptx.cuh"

namespace trellink {

// Of the packet at two places of an arena, the first of them even.
__device__ __forceinline__ Packet load_packet(const uint64_t* place) {
  const ulonglong2 halves = ptx::ld_relaxed_sys_b128(place);
  return {halves.x, halves.y};
}

__device__ __forceinline__ void store_packet(uint64_t* place, const Packet& packet) {
  ptx::st_relaxed_sys_b128(place, packet.low, packet.high);
}

}  // namespace trellink
