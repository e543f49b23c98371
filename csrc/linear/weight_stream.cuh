// A warp's weights on their way from memory to its registers, through a place in shared memory that is
// filled behind the warp's back: while it decodes the last group of a span, the next span arrives.
//
// Only the warp itself touches its place. From Hopper on the copy engine fills it, at a barrier; before,
// there are only copies of threads (cp.async). More than one span ahead does not pay: a warp that starts
// many copies waits for the first of them, and what is in flight already covers the memory's latency. Where an
// iteration does much besides, spans of several groups halve the time between two of them.
#pragma once

#include "linear/shared_layout.cuh"
#include "linear/spans.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// What the warps of a CTA have of their streams in shared memory: outside the loop registers are scarce.
struct WeightStreams {
  uint64_t barriers[kWarps];
  const uint32_t* blocks[kWarps];  // of the first strip
  uint32_t groups, stride;         // K groups in all, and spans from one of a warp to its next; the same for all
};

// What a warp has of its stream in registers while it is in the loop.
struct WeightWalk {
  const uint32_t* blocks;
  uint32_t groups;
  uint32_t* place;  // in shared memory
};

// kSpans: spans may have more than one group.
template <bool kSpans>
class WeightStream {
 public:
  // params must be the kernel's __grid_constant__ parameter: it takes no registers. By whole warps.
  __device__ WeightStream(const TrellinkLinear& params, WeightStreams& streams)
      : params_(params), streams_(streams), warp_(ptx::warp_index()) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % kLanes == 0) {
      ptx::mbarrier_init(barrier(), 1);
      ptx::fence_mbarrier_init();
    }
    __syncwarp();
#endif
  }

  // The blocks of `groups` K groups of `count` neighbouring strips, the first of which begins at `strip`; a block
  // has `block_words`. The warp takes spans first, first + stride, ... What was begun before has all been taken.
  __device__ void begin(const uint32_t* strip, uint32_t count, uint32_t block_words, uint32_t groups, uint32_t first,
                        uint32_t stride) {
    span_ = first;
    if (threadIdx.x % kLanes == 0) streams_.blocks[warp_] = strip;
    __syncwarp();
    if (threadIdx.x == 0) {
      streams_.groups = groups;
      streams_.stride = stride;
    }
    if (span_ < spans_of(groups, log2())) fetch({strip, groups, place()}, count, block_words);
  }

  // The CTA's warp that this is.
  __device__ uint32_t warp() const { return warp_; }

  // What begin() was given.
  __device__ WeightWalk walk() const {
    return {streams_.blocks[warp_], streams_.groups, ptx::opaque_shared(place())};
  }

  // The span that comes next; beyond the last when all are done.
  __device__ uint32_t span() const { return span_; }
  // Spans from one of the warp to its next.
  __device__ uint32_t stride() const { return streams_.stride; }
  // Groups of the span.
  __device__ uint32_t groups(const WeightWalk& walk) const {
    return kSpans ? groups_of_span(walk.groups, log2(), span_) : 1;
  }
  // log2 of the groups of a whole span.
  __device__ uint32_t log2() const { return kSpans ? params_.span_log2 : 0; }

  // Waits for it. All lanes may then read its blocks, strip by strip, those of a strip block_words << log2() apart.
  __device__ const uint32_t* blocks(const WeightWalk& walk) const {
#if __CUDA_ARCH__ >= 900
    while (!ptx::mbarrier_try_wait(barrier(), parity_)) {
    }
#else
    ptx::cp_async_wait_all();
    __syncwarp();
#endif
    return walk.place;
  }

  // Goes on to the next, once all of this one has been read into registers. Reads that have merely been started could find
  // what the copy brings: it is not ordered behind them. So the stride is read behind them, and the copy depends on it.
  __device__ void advance(const WeightWalk& walk, uint32_t count, uint32_t block_words) {
    __syncwarp();
    parity_ ^= 1;
    span_ += ptx::ld_shared_in_order(&streams_.stride);
    if (span_ < spans_of(walk.groups, log2())) fetch(walk, count, block_words);
  }

 private:
  __device__ uint64_t* barrier() const { return streams_.barriers + warp_; }

  __device__ uint32_t* place() const {
    return reinterpret_cast<uint32_t*>(ptx::dynamic_shared() + warp_ * params_.warp_bytes);
  }

  __device__ void fetch(const WeightWalk& walk, uint32_t count, uint32_t block_words) const {
    const uint64_t strip_words = static_cast<uint64_t>(params_.k_groups) * block_words;
    const uint32_t place_words = block_words << log2(), words = groups(walk) * block_words;
    const uint32_t* from = walk.blocks + static_cast<uint64_t>(span_) * place_words;
    uint32_t* to = walk.place;
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % kLanes != 0) return;
    const uint32_t bytes = words * sizeof(uint32_t);
    ptx::mbarrier_expect(barrier(), count * bytes);
    for (uint32_t s = 0; s < count; ++s) {
      ptx::copy_bulk(to + s * place_words, from + s * strip_words, bytes, barrier());
    }
#else
    constexpr uint32_t kWordsPerCopy = 4;
    for (uint32_t s = 0; s < count; ++s) {
      for (uint32_t i = threadIdx.x % kLanes * kWordsPerCopy; i < words; i += kLanes * kWordsPerCopy) {
        ptx::cp_async_16(to + s * place_words + i, from + s * strip_words + i);
      }
    }
#endif
  }

  const TrellinkLinear& params_;
  WeightStreams& streams_;
  const uint32_t warp_;  // found out once, by all lanes
  uint32_t parity_ = 0;  // of the barrier's phase in which the next span arrives
  uint32_t span_;
};

}  // namespace trellink
