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
#include "linear/warp_record.cuh"

namespace trellink {

// What the rings of a CTA have in shared memory. src/plan.rs knows the greatest number of places.
struct RingPlaces {
  static constexpr uint32_t kMost = 32;
  uint64_t full[kMost];   // a span has been copied
  uint64_t empty[kMost];  // all warps of the slice have done with it
};
static_assert(kWarps < WarpRecord::kFirstPlace && RingPlaces::kMost <= WarpRecord::kRefills / WarpRecord::kFirstPlace,
              "both fit a record's steps");

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

  // Makes the barriers for a piece of `strips`, anew if they are there. By all warps, each some: a warp makes one after
  // the other. While no copy is on its way; the caller synchronises.
  static __device__ __forceinline__ void init(RingPlaces& places, uint32_t strips, bool anew) {
#if TRELLINK_RINGS
    static_assert(RingPlaces::kMost % kWarps == 0, "each warp has as many");
    constexpr uint32_t kPlacesOfWarp = RingPlaces::kMost / kWarps;
    const uint32_t first = ptx::warp_index() * kPlacesOfWarp;
    if (threadIdx.x % kLanes != 0) return;
#pragma unroll
    for (uint32_t i = 0; i < kPlacesOfWarp; ++i) {
      uint64_t *full = places.full + first + i, *empty = places.empty + first + i;
      if (anew) {
        ptx::mbarrier_invalidate(full);
        ptx::mbarrier_invalidate(empty);
      }
      ptx::mbarrier_init(full, 1);
      // A warp takes one strip, so a slice has as many warps as the piece has strips.
      static_assert(Arithmetic::kStrips == 1 || Arithmetic::kHeldTokens == 0, "a warp takes one strip");
      ptx::mbarrier_init(empty, strips);
    }
    ptx::fence_mbarrier_init();
#endif
  }

  // cut and piece may be in shared memory.
  __device__ OperandRing(const TrellinkLinear& params, RingPlaces& places, const Cut& cut, const Piece<Arithmetic>& piece)
      : params_(params), places_(places), cut_(cut), piece_(piece) {}

  // A span on its way to a place, if there is one: all that needs no input yet.
  struct Copy {
    uint32_t bytes;  // 0: there is none
    void* to;
    const void* from;
    uint64_t* full;

    __device__ __forceinline__ void start() const {
#if TRELLINK_RINGS
      if (bytes > 0) ptx::copy_bulk(to, from, bytes, full);
#endif
    }
  };

  // This lane's of the first copies to all places of the share's slice, by its warps. Lets the warp's record say where
  // they are.
  __device__ __forceinline__ Copy first(WarpRecord& record, const Share& share) const {
    const uint32_t lane = threadIdx.x % kLanes, first = share.slice * params_.places;
    const bool refills = share.slot == refilling_slot(share);
    if (lane == 0) {
      record.rings = ptx::SharedPointer<RingPlaces>(&places_);
      record.walk.steps += first * WarpRecord::kFirstPlace + refills * WarpRecord::kRefills;
    }
    const uint32_t span = share.slice + lane * share.slices;
    Copy copy{};
    if (refills && lane < params_.places && exists(span)) copy = copy_of(first + lane, span);
    __syncwarp();
    return copy;
  }

  // Where a warp is.
  struct At {
    uint32_t place;   // of its span in the slice's ring, params.places when it is the first one again
    uint32_t parity;  // of the phase that the place's barriers are in
  };

  // Waits for the span at hand, `span`. The number of its place among the CTA's.
  __device__ __forceinline__ uint32_t await(At& at, uint32_t span, const WarpRecord& state) const {
    if (at.place == params_.places) at = {0, at.parity ^ 1};
    const uint32_t steps = state.walk.steps, place = WarpRecord::first_place(steps) + at.place;
    if (WarpRecord::refills(steps)) {
      const uint32_t stride = WarpRecord::stride(steps);
      if (span >= stride) refill(at, place, span + (params_.places - 1) * stride);
    }
    ++at.place;
#if TRELLINK_RINGS
    while (!ptx::mbarrier_try_wait(state.rings.get()->full + place, at.parity)) {
    }
#endif
    return place;
  }

  // The warp has done with the span in place `place`: all that it has read is in its sums.
  __device__ __forceinline__ void release(uint32_t place, const WarpRecord& state) const {
    __syncwarp();
#if TRELLINK_RINGS
    if (threadIdx.x % kLanes == 0) ptx::mbarrier_arrive(state.rings.get()->empty + place);
#endif
  }

 private:
  // Which of a slice's warps refills. Warp w is on scheduler w % kSchedulers of its SM; not all shall be on one.
  static __device__ __forceinline__ uint32_t refilling_slot(const Share& share) {
    constexpr uint32_t kSchedulers = 4;
    return share.slice % (share.slots >= kSchedulers ? kSchedulers : share.slots >= 2 ? 2u : 1u);
  }

  // Starts the copy of a span, if there is one, to the place that a warp has left last. It is at `at`, which is place
  // `place` of the CTA's.
  __device__ __forceinline__ void refill(const At& at, uint32_t place, uint32_t span) const {
#if TRELLINK_RINGS
    if (threadIdx.x % kLanes == 0 && exists(span)) {
      const bool wraps = at.place == 0;
      const uint32_t left = wraps ? place + params_.places - 1 : place - 1;
      while (!ptx::mbarrier_try_wait(places_.empty + left, at.parity ^ wraps)) {
      }
      copy_of(left, span).start();
    }
    __syncwarp();
#endif
  }

  __device__ __forceinline__ bool exists(uint32_t span) const {
    return span < spans_of(cut_.groups(), params_.span_log2);
  }

  // The copy of a span that exists to place `place` of the CTA's, whose barrier expects it from now on.
  __device__ __forceinline__ Copy copy_of(uint32_t place, uint32_t span) const {
    const uint32_t log2 = params_.span_log2;
    const Operands<Arithmetic> from(params_, piece_.segment, piece_.first_token / Arithmetic::kTokens);
    const SharedLayout<Arithmetic> to(params_, piece_.tokens);
    const uint32_t bytes = groups_of_span(cut_.groups(), log2, span) * Operands<Arithmetic>::kGroupBytes;
    uint64_t* full = places_.full + place;
#if TRELLINK_RINGS
    ptx::mbarrier_expect(full, bytes);
#endif
    return {bytes, to.input(place << log2, 0), from.input(cut_.first_group + (span << log2), 0), full};
  }

  const TrellinkLinear& params_;
  RingPlaces& places_;
  const Cut& cut_;
  const Piece<Arithmetic>& piece_;
};

}  // namespace trellink
