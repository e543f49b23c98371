// A warp's weights on their way from memory to its registers, through a place in shared memory that is
// filled behind the warp's back: while it decodes the last group of a span, the next span arrives.
//
// Only the warp itself touches its place. From Hopper on the copy engine fills it, at a barrier; before,
// there are only copies of threads (cp.async). More than one span ahead does not pay: a warp that starts
// many copies waits for the first of them, and what is in flight already covers the memory's latency. Where an
// iteration does much besides, spans of several groups halve the time between two of them. A long first span is in the
// way of the launch that transforms the input; so its first group can set out alone.
#pragma once

#include "linear/shared_layout.cuh"
#include "linear/spans.cuh"
#include "linear/warp_record.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// kSpans: spans may have more than one group.
template <bool kSpans>
class WeightStream {
 public:
  // params must be the kernel's __grid_constant__ parameter: it takes no registers. By whole warps; `record` is the warp's.
  __device__ WeightStream(const TrellinkLinear& params, WarpRecord& record)
      : params_(params), record_(*ptx::SharedPointer<WarpRecord>(&record).get()) {
    auto* place = reinterpret_cast<uint32_t*>(ptx::dynamic_shared() + ptx::warp_index() * params_.warp_bytes);
    if (threadIdx.x % kLanes == 0) {
      record_.place = ptx::SharedPointer<uint32_t>(place);
      record_.base = ptx::SharedPointer<unsigned char>(ptx::dynamic_shared());
#if __CUDA_ARCH__ >= 900
      ptx::mbarrier_init(&record_.barrier, 1);
      ptx::fence_mbarrier_init();
#endif
    }
    __syncwarp();
  }

  // The blocks of `groups` K groups of one strip or two neighbouring ones, `count`, the first of which begins at `strip`; a block
  // has `block_words`. The warp takes spans first, first + stride, ... What was begun before has all been taken.
  // Of the first span only `ahead` groups set out, before Hopper all; the rest by begin_rest().
  __device__ void begin(const uint32_t* strip, uint32_t count, uint32_t block_words, uint32_t groups, uint32_t first,
                        uint32_t stride, uint32_t ahead) {
    const WarpRecord::Walk walk = {strip, groups, stride};
    if (threadIdx.x % kLanes == 0) record_.walk = walk;
    __syncwarp();
    span_ = first;
    if (span_ < spans_of(groups, log2())) fetch(walk, record_, count, block_words, ahead);
  }

  // What begin() has left, of one strip.
  __device__ void begin_rest(uint32_t block_words, uint32_t ahead) const {
#if __CUDA_ARCH__ >= 900
    const WarpRecord::Walk walk = record_.walk;
    if (span_ >= spans_of(walk.groups, log2())) return;
    const uint32_t groups = groups_of_span(walk.groups, log2(), span_);
    if (groups <= ahead || !ptx::elect_one()) return;
    const uint32_t* from = walk.blocks + static_cast<uint64_t>(span_) * (block_words << log2());
    const uint32_t words = ahead * block_words, bytes = (groups - ahead) * block_words * sizeof(uint32_t);
    ptx::copy_bulk_once(record_.place.get() + words, from + words, bytes, &record_.barrier);
#endif
  }

  // What the warp has in shared memory. A `state` below is this, or a copy in registers.
  __device__ WarpRecord& record() const { return record_; }

  // The span that comes next; beyond the last when all are done.
  __device__ uint32_t span() const { return span_; }
  // Groups of the span.
  __device__ uint32_t groups(const WarpRecord& state) const {
    return kSpans ? groups_of_span(state.walk.groups, log2(), span_) : 1;
  }
  // log2 of the groups of a whole span.
  __device__ uint32_t log2() const { return kSpans ? params_.span_log2 : 0; }

  // Waits for it. All lanes may then read its blocks, strip by strip, those of a strip block_words << log2() apart.
  __device__ const uint32_t* blocks(const WarpRecord& state) const {
    const uint32_t* place = state.place.get();
#if __CUDA_ARCH__ >= 900
    while (!ptx::mbarrier_try_wait(&record_.barrier, parity_)) {
    }
#else
    ptx::cp_async_wait_all();
    __syncwarp();
#endif
    return place;
  }

  // Goes on to the next, once all of this one has been read into registers. Reads that have merely been started could find
  // what the copy brings: it is not ordered behind them. So some of what the copy needs is read behind them, all of it
  // if the state is not a copy, as kHeld says.
  template <bool kHeld>
  __device__ void advance(const WarpRecord& state, uint32_t count, uint32_t block_words) {
    __syncwarp();
    parity_ ^= 1;
    WarpRecord::Walk walk;
    if constexpr (kHeld) {
      walk = {state.walk.blocks, state.walk.groups, ptx::ld_shared_in_order(&record_.walk.steps)};
    } else {
      walk = ptx::ld_shared_in_order(&record_.walk);
    }
    span_ += WarpRecord::stride(walk.steps);
    if (span_ < spans_of(walk.groups, log2())) fetch(walk, state, count, block_words);
  }

 private:
  // Starts the copy of the span, of no more than `most` of its groups, though the barrier expects all.
  __device__ void fetch(const WarpRecord::Walk& walk, const WarpRecord& state, uint32_t count, uint32_t block_words,
                        uint32_t most = ~0u) const {
    const uint64_t strip_words = static_cast<uint64_t>(params_.k_groups) * block_words;
    const uint32_t groups = kSpans ? groups_of_span(walk.groups, log2(), span_) : 1;
    const uint32_t place_words = block_words << log2(), words = groups * block_words;
    const uint32_t* from = walk.blocks + static_cast<uint64_t>(span_) * place_words;
    uint32_t* to = state.place.get();
#if __CUDA_ARCH__ >= 900
    if (!ptx::elect_one()) return;
    ptx::mbarrier_expect(&record_.barrier, count * words * sizeof(uint32_t));
    const uint32_t bytes = min(groups, most) * block_words * sizeof(uint32_t);
    ptx::copy_bulk_once(to, from, bytes, &record_.barrier);
    // No loop: in one the compiler finds out both addresses from the beginning.
    if (count == 2) ptx::copy_bulk_once(to + place_words, from + strip_words, bytes, &record_.barrier);
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
  WarpRecord& record_;
  uint32_t parity_ = 0;  // of the barrier's phase in which the next span arrives
  uint32_t span_;
};

}  // namespace trellink
