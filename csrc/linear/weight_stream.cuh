// A warp's weights on their way from memory: a ring of stages in shared memory that is filled behind
// the warp's back, so that enough is in flight while it decodes, and before it has anything to decode.
//
// A stage holds the blocks of one K group of the warp's strips. Only the warp itself touches its ring.
// From Hopper on the copy engine fills it, at a barrier for each stage: copies of threads (cp.async)
// would stand in the way of everything else that these load. Before, there are only those.
#pragma once

#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

class WeightStream {
 public:
  static constexpr uint32_t kMaxStages = 4;
  // A word of shared memory for every stage of a warp.
  using Barriers = uint64_t[kMaxStages];

  // params must be the kernel's __grid_constant__ parameter: it takes no registers. By whole warps.
  __device__ WeightStream(const TrellinkLinear& params, Barriers* barriers)
      : params_(params), barriers_(barriers), warp_(ptx::warp_index()) {
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % kLanes == 0) {
      for (uint32_t i = 0; i < params_.stages; ++i) ptx::mbarrier_init(barrier(i));
      ptx::fence_mbarrier_init();
    }
    __syncwarp();
#endif
  }

  // The blocks of groups begin, begin + stride, ... < end of `count` neighbouring strips, the first of
  // which begins at `strip`; a block has `block_words`. Fills the first stage. What was begun before has
  // all been taken.
  __device__ void begin(const uint32_t* strip, uint32_t count, uint32_t block_words, uint32_t begin, uint32_t end,
                        uint32_t stride) {
    blocks_ = strip;
    next_ = begin;
    end_ = end;
    stride_ = stride;
    under_way_ = 0;
    fill_one(count, block_words);
  }

  // Fills one more stage, if there is one. Not all at once, for a warp that starts many copies waits for
  // the first of them.
  __device__ void fill_one(uint32_t count, uint32_t block_words) {
    if (under_way_ < params_.stages) fetch(count, block_words);
  }

  // The group of the oldest stage; not less than the end that was given when all are done.
  __device__ uint32_t group() const { return next_ - under_way_ * stride_; }

  // Waits for the oldest stage. All lanes may then read it.
  __device__ const uint32_t* oldest(uint32_t count, uint32_t block_words) const {
#if __CUDA_ARCH__ >= 900
    while (!ptx::mbarrier_try_wait(barrier(stage_), parity_)) {
    }
#else
    switch (under_way_) {
      case 1: ptx::cp_async_wait<0>(); break;
      case 2: ptx::cp_async_wait<1>(); break;
      case 3: ptx::cp_async_wait<2>(); break;
      default: ptx::cp_async_wait<3>();
    }
    __syncwarp();
#endif
    return stage_words(stage_, count, block_words);
  }

  // Goes on to the next stage, once all of the oldest has been read into registers, and refills that.
  __device__ void advance(uint32_t count, uint32_t block_words) {
    __syncwarp();
    if (++stage_ == params_.stages) {
      stage_ = 0;
      parity_ ^= 1;
    }
    --under_way_;
    fetch(count, block_words);
    fill_one(count, block_words);
  }

 private:
  __device__ uint64_t* barrier(uint32_t stage) const { return barriers_[warp_] + stage; }

  __device__ uint32_t* stage_words(uint32_t stage, uint32_t count, uint32_t block_words) const {
    auto* ring = reinterpret_cast<uint32_t*>(ptx::dynamic_shared() + warp_ * params_.ring_bytes);
    return ring + stage * count * block_words;
  }

  __device__ void fetch(uint32_t count, uint32_t block_words) {
    const uint32_t stage = stage_ + under_way_;
    if (next_ < end_) copy(stage < params_.stages ? stage : stage - params_.stages, count, block_words);
#if __CUDA_ARCH__ < 900
    // Also an empty group, so that their number tells which stage is complete.
    ptx::cp_async_commit();
#endif
    next_ += stride_;
    ++under_way_;
  }

  __device__ void copy(uint32_t stage, uint32_t count, uint32_t block_words) const {
    const uint64_t strip_words = static_cast<uint64_t>(params_.k_groups) * block_words;
    const uint32_t* from = blocks_ + next_ * block_words;
    uint32_t* to = stage_words(stage, count, block_words);
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % kLanes != 0) return;
    const uint32_t block_bytes = block_words * sizeof(uint32_t);
    ptx::mbarrier_expect(barrier(stage), count * block_bytes);
    for (uint32_t s = 0; s < count; ++s) {
      ptx::copy_bulk(to + s * block_words, from + s * strip_words, block_bytes, barrier(stage));
    }
#else
    constexpr uint32_t kWordsPerCopy = 4;
    for (uint32_t s = 0; s < count; ++s) {
      for (uint32_t i = threadIdx.x % kLanes * kWordsPerCopy; i < block_words; i += kLanes * kWordsPerCopy) {
        ptx::cp_async_16(to + s * block_words + i, from + s * strip_words + i);
      }
    }
#endif
  }

  const TrellinkLinear& params_;
  Barriers* const barriers_;
  const uint32_t warp_;  // found out once, by all lanes
  const uint32_t* blocks_;
  uint32_t stage_ = 0, parity_ = 0;  // the oldest stage
  uint32_t under_way_;               // stages that are filled or being filled
  uint32_t next_, end_, stride_;
};

}  // namespace trellink
