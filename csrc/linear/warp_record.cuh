// What a warp has of its streams, of weights and of inputs, in shared memory: in the main loop registers are scarce.
#pragma once

#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

struct RingPlaces;

struct alignas(16) WarpRecord {
  // What the copy of a span needs: 16 bytes, which are read together.
  struct Walk {
    const uint32_t* blocks;  // of the first strip
    uint32_t groups;         // K groups in all
    uint32_t steps;          // see stride()
  };
  Walk walk;
  uint64_t barrier;                      // of the weights
  ptx::SharedPointer<uint32_t> place;    // of the weights
  ptx::SharedPointer<RingPlaces> rings;  // of the CTA
  // Of the shared layout. The compiler finds it out anew, from the CTA's rank in its cluster, in every span; it waits
  // for that rank longer than for this.
  ptx::SharedPointer<unsigned char> base;

  // In `steps`: spans from one of the warp to its next, at most kWarps; which of the CTA's places is the first of the
  // slice's ring; and whether this warp is the one that refills it.
  static constexpr uint32_t kFirstPlace = 1u << 8, kRefills = 1u << 16;
  static __device__ uint32_t stride(uint32_t steps) { return steps % kFirstPlace; }
  static __device__ uint32_t first_place(uint32_t steps) { return steps / kFirstPlace % (kRefills / kFirstPlace); }
  static __device__ bool refills(uint32_t steps) { return steps >= kRefills; }
};

}  // namespace trellink
