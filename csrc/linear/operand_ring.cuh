// The inputs that a launch of the transform kernel has made, on their way to the warps of a slice of K: span by
// span, around places in shared memory that these warps share.
//
// The copy engine fills a place again as soon as the last warp of the slice has done with it, so no warp waits
// for those of other slices, and none spends its time copying.
#pragma once

#include "linear/cut.cuh"
#include "linear/operands.cuh"
#include "linear/spans.cuh"

namespace trellink {

// What the rings of a CTA have in shared memory. src/plan.rs knows the greatest number of places.
struct RingPlaces {
  static constexpr uint32_t kMost = 32;
  uint64_t full[kMost];
  uint32_t done[kMost];  // warps that need what is in a place no more
  // Where each warp is. Here, for the loop wants all registers.
  struct At {
    uint32_t first;   // place of its slice
    uint32_t place;   // behind it, where the span at hand is
    uint32_t parity;  // of the phase of that place's barrier
  } at[kWarps];
};

// A warp's view of its slice's ring.
template <class Arithmetic>
class OperandRing {
 public:
  // Whether a launch's inputs come this way.
  static __device__ __forceinline__ bool serves(const TrellinkLinear& params) {
#if TRELLINK_RINGS
    return Arithmetic::kHeldTokens > 0 && params.operands != 0;
#else
    return false;
#endif
  }

  // Makes the barriers, anew if they are there. By warp 0, while no copy is on its way; the caller synchronises.
  static __device__ __forceinline__ void init(RingPlaces& places, bool anew) {
#if TRELLINK_RINGS
    if (threadIdx.x >= RingPlaces::kMost) return;
    if (anew) ptx::mbarrier_invalidate(places.full + threadIdx.x);
    ptx::mbarrier_init(places.full + threadIdx.x);
    places.done[threadIdx.x] = 0;
    ptx::fence_mbarrier_init();
#endif
  }

  // cut and piece may be in shared memory.
  __device__ OperandRing(const TrellinkLinear& params, RingPlaces& places, const Cut& cut, const Piece<Arithmetic>& piece)
      : params_(params), places_(places), cut_(cut), piece_(piece) {}

  // Starts the copies to all places of the share's slice. By its warps, of which this is warp `warp` of the CTA.
  __device__ __forceinline__ void begin(uint32_t warp, const Share& share) const {
    const uint32_t lane = threadIdx.x % kLanes, first = share.slice * params_.places;
    if (lane == 0) places_.at[warp] = {first, 0, 0};
    if (share.slot == 0 && lane < params_.places) fill(first + lane, share.slice + lane * share.slices);
    __syncwarp();
  }

  // Waits for the span at hand of warp `warp`, which this is; the number of its first group in the shared input.
  __device__ __forceinline__ uint32_t await(uint32_t warp) const {
    const RingPlaces::At at = places_.at[warp];
    const uint32_t place = at.first + at.place;
#if TRELLINK_RINGS
    while (!ptx::mbarrier_try_wait(places_.full + place, at.parity)) {
    }
#endif
    return place << params_.span_log2;
  }

  // The warp has done with it; it was span `span`, and the slice's next one lies `stride` spans further.
  __device__ __forceinline__ void release(uint32_t warp, uint32_t span, uint32_t stride) const {
    // A warp takes one strip, so a slice has as many warps as the piece has strips.
    static_assert(Arithmetic::kStrips == 1 || Arithmetic::kHeldTokens == 0, "a warp takes one strip");
    __syncwarp();
    if (threadIdx.x % kLanes == 0) {
      RingPlaces::At at = places_.at[warp];
      const uint32_t place = at.first + at.place;
      if (ptx::atom_add_shared(places_.done + place, 1) + 1 == piece_.strips) {
        places_.done[place] = 0;
        fill(place, span + params_.places * stride);
      }
      if (++at.place == params_.places) at = {at.first, 0, at.parity ^ 1};
      places_.at[warp] = at;
    }
    __syncwarp();
  }

 private:
  // Starts the copy of a span, if there is one, to place `place` of the CTA's.
  __device__ __forceinline__ void fill(uint32_t place, uint32_t span) const {
#if TRELLINK_RINGS
    const uint32_t groups = cut_.groups(), log2 = params_.span_log2;
    if (span >= spans_of(groups, log2)) return;
    const Operands<Arithmetic> from(params_, piece_.segment, piece_.first_token / Arithmetic::kTokens);
    const SharedLayout<Arithmetic> to(params_, piece_.tokens);
    const uint32_t bytes = groups_of_span(groups, log2, span) * Operands<Arithmetic>::kGroupBytes;
    uint64_t* full = places_.full + place;
    ptx::mbarrier_expect(full, bytes);
    ptx::copy_bulk(to.input(place << log2, 0), from.input(cut_.first_group + (span << log2), 0), bytes, full);
#endif
  }

  const TrellinkLinear& params_;
  RingPlaces& places_;
  const Cut& cut_;
  const Piece<Arithmetic>& piece_;
};

}  // namespace trellink
