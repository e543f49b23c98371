// The inputs that a launch of the transform kernel has made, on their way to the warps of a slice of K: span by
// span, around places in shared memory that these warps share.
//
// A warp says when it has done with a place, and goes on. One of the slice's warps, before it begins with its next
// span, waits until all have said so and starts the copy that fills the place again. So the others spend no time on
// copying, and none waits for those of other slices.
#pragma once

#include "linear/cut.cuh"
#include "linear/operands.cuh"
#include "linear/spans.cuh"

namespace trellink {

// What the rings of a CTA have in shared memory. src/plan.rs knows the greatest number of places.
struct RingPlaces {
  static constexpr uint32_t kMost = 32;
  uint64_t full[kMost];   // a span has been copied
  uint64_t empty[kMost];  // all warps of the slice have done with it
  uint32_t at[kWarps];    // where each warp begins, see OperandRing::At
};

// A warp's view of its slice's ring.
template <class Arithmetic>
class OperandRing {
 public:
  // Whether a launch's inputs come this way.
  static __device__ __forceinline__ bool serves(const TrellinkLinear& params) {
#if TRELLINK_RINGS
    return Arithmetic::kHeldTokens > 0 && (!Arithmetic::kTransforms || params.operands != 0);
#else
    return false;
#endif
  }

  // Makes the barriers for a piece of `strips`, anew if they are there. By warp 0, while no copy is on its way; the
  // caller synchronises.
  static __device__ __forceinline__ void init(RingPlaces& places, uint32_t strips, bool anew) {
#if TRELLINK_RINGS
    if (threadIdx.x >= RingPlaces::kMost) return;
    uint64_t *full = places.full + threadIdx.x, *empty = places.empty + threadIdx.x;
    if (anew) {
      ptx::mbarrier_invalidate(full);
      ptx::mbarrier_invalidate(empty);
    }
    ptx::mbarrier_init(full, 1);
    // A warp takes one strip, so a slice has as many warps as the piece has strips.
    static_assert(Arithmetic::kStrips == 1 || Arithmetic::kHeldTokens == 0, "a warp takes one strip");
    ptx::mbarrier_init(empty, strips);
    ptx::fence_mbarrier_init();
#endif
  }

  // cut and piece may be in shared memory.
  __device__ OperandRing(const TrellinkLinear& params, RingPlaces& places, const Cut& cut, const Piece<Arithmetic>& piece)
      : params_(params), places_(places), cut_(cut), piece_(piece) {}

  // Starts the copies to all places of the share's slice. By its warps, of which this is warp `warp` of the CTA.
  __device__ __forceinline__ void begin(uint32_t warp, const Share& share) const {
    const uint32_t lane = threadIdx.x % kLanes, first = share.slice * params_.places;
    const bool refills = share.slot == share.slice % min(share.slots, kSchedulers);
    if (lane == 0) places_.at[warp] = first + refills * At::kRefills;
    if (refills && lane < params_.places) fill(first + lane, share.slice + lane * share.slices);
    __syncwarp();
  }

  // Where a warp is: the place of its span, the first one of its slice, the parity of the phase that the place's
  // barriers are in, and whether the warp is the one that refills.
  struct At {
    static constexpr uint32_t kRefills = 1u << 16;
    RingPlaces* ring;
    uint32_t place, first, parity;
    bool refills;

    __device__ void next(uint32_t places) {
      if (++place == first + places) place = first, parity ^= 1;
    }
    __device__ void previous(uint32_t places) {
      if (place-- == first) place = first + places - 1, parity ^= 1;
    }
  };

  // Where warp `warp`, which this is, begins.
  __device__ __forceinline__ At first(uint32_t warp) const {
    const uint32_t at = places_.at[warp];
    return {ptx::opaque_shared(&places_), at % At::kRefills, at % At::kRefills, 0, at >= At::kRefills};
  }

  // Waits for the span at hand, `span` of `weights`. The number of its first group in the shared input.
  template <class Weights>
  __device__ __forceinline__ uint32_t await(const At& at, uint32_t span, const Weights& weights) const {
    if (at.refills) {
      const uint32_t stride = weights.stride();
      if (span >= stride) refill(at, span + (params_.places - 1) * stride);
    }
#if TRELLINK_RINGS
    while (!ptx::mbarrier_try_wait(at.ring->full + at.place, at.parity)) {
    }
#endif
    return at.place << params_.span_log2;
  }

  // The warp has done with it.
  __device__ __forceinline__ void release(At& at) const {
    __syncwarp();
#if TRELLINK_RINGS
    if (threadIdx.x % kLanes == 0) ptx::mbarrier_arrive(at.ring->empty + at.place);
#endif
    at.next(params_.places);
  }

 private:
  // Of an SM; warp w is on scheduler w % kSchedulers. The warps that refill shall not all be on one.
  static constexpr uint32_t kSchedulers = 4;

  // Starts the copy of a span, if there is one, to the place that a warp at `at` has left last.
  __device__ __forceinline__ void refill(const At& at, uint32_t span) const {
#if TRELLINK_RINGS
    if (threadIdx.x % kLanes == 0 && span < spans_of(cut_.groups(), params_.span_log2)) {
      At left = at;
      left.previous(params_.places);
      while (!ptx::mbarrier_try_wait(places_.empty + left.place, left.parity)) {
      }
      fill(left.place, span);
    }
    __syncwarp();
#endif
  }

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
