// Kernels that are wrong on purpose: negative controls for the tests of the exchange, which must notice them,
// and delays that they must not mind. Also kernels whose waits are not bounded, to measure what bounding costs.
//
// A build chooses with TRELLINK_FAULTS, a sum of the constants below (build/device.rs reads them from the environment);
// tools/negative-controls makes one build for each. Without it `has` is false and no kernel has an instruction more. In
// the simulator it is a function, so that a test can choose.
#pragma once

#include "ptx/ptx.cuh"

#ifndef TRELLINK_FAULTS
#define TRELLINK_FAULTS 0
#endif

namespace trellink::fault {

enum Fault : uint32_t {
  // One CTA of one rank takes its time before it begins and before each wait, in every call another one; for
  // kCallsPerTurn calls, then one of the next rank. So a peer that is not held up gets a call ahead. No fault of the
  // exchange, which must give the same sums.
  kDelayedCta = 1,
  // The same of all CTAs of that rank.
  kDelayedRank = 2,
  // The first packet of rank 1 never gets to rank 0, in one call of kCallsPerDrop.
  kDroppedPacket = 4,
  // All calls use the same half of an arena.
  kOneHalf = 8,
  // A tag is compared with == alone: what is not of this call has not arrived, also if it is of a later or another one.
  kEqual = 16,
  // No tag is compared: whatever lies in the arena has arrived.
  kAnyTag = 32,
  // Waits look neither at the clock nor at the abort word, launches not at the stop word.
  kUnboundedWait = 64,
  // Waits would look at them after two thousand million polls. The kernels are the same ones but for that number, so
  // beside them what bounding a wait does is measured alone; beside the others what its code being there does, too.
  kUnaskedWait = 128,
  // CTAs with an odd number begin as if a peer's word to stop had come before they read it, and after the others had.
  kHalfStopped = 256,
};

// Longer in the simulator, where a peer takes milliseconds to get a call ahead.
#ifndef TRELLINK_FAULT_DELAY_NS
#define TRELLINK_FAULT_DELAY_NS 100000
#endif

constexpr uint64_t kDelayNs = TRELLINK_FAULT_DELAY_NS;
constexpr uint32_t kCallsPerDrop = 16;
constexpr uint32_t kCallsPerTurn = 4;

__device__ __forceinline__ bool has(Fault fault) { return ((TRELLINK_FAULTS) & fault) != 0; }

// Whether CTAs or ranks take their time.
__device__ __forceinline__ bool holds_up() { return has(kDelayedCta) || has(kDelayedRank); }

// Takes its time, if this CTA's or this rank's turn has come.
__device__ __forceinline__ void hold_up(uint32_t epoch, uint32_t rank, uint32_t world) {
  if (rank != epoch / kCallsPerTurn % world) return;
  if (!has(kDelayedRank) && !(has(kDelayedCta) && blockIdx.x == epoch % ptx::grid_ctas())) return;
  for (const uint64_t start_ns = ptx::globaltimer_ns(); ptx::globaltimer_ns() - start_ns < kDelayNs;) {
  }
}

// Whether a CTA is to begin as if it had read the stop word as set.
__device__ __forceinline__ bool stops() { return has(kHalfStopped) && blockIdx.x % 2 == 1; }

// Whether a packet gets lost on its way.
__device__ __forceinline__ bool drops(uint32_t epoch, uint32_t from, uint32_t to, uint64_t place) {
  return has(kDroppedPacket) && epoch % kCallsPerDrop == kCallsPerDrop - 1 && from == 1 && to == 0 && place == 0;
}

}  // namespace trellink::fault
