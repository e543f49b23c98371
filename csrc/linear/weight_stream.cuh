// A warp's weights on their way from memory: a ring of stages in shared memory that is filled behind
// the warp's back, so that enough is in flight while it decodes, and before it has anything to decode.
//
// A stage holds the blocks of one K group of the warp's strips. Only the warp itself touches its ring.
#pragma once

#include "format/block.h"
#include "ptx/ptx.cuh"

namespace trellink {

class WeightStream {
 public:
  // params must be the kernel's __grid_constant__ parameter: it takes no registers.
  __device__ explicit WeightStream(const TrellinkLinear& params) : params_(params) {}

  // The blocks of groups begin, begin + stride, ... < end of `count` neighbouring strips, the first of
  // which begins at `strip`; a block has `block_words`. Fills all stages.
  __device__ void begin(const uint32_t* strip, uint32_t count, uint32_t block_words, uint32_t begin, uint32_t end,
                        uint32_t stride) {
    blocks_ = strip;
    next_ = begin;
    end_ = end;
    stride_ = stride;
    stage_ = 0;
    // Other lanes may still be reading what was here before.
    __syncwarp();
    for (uint32_t i = 0; i < params_.stages; ++i) fetch(i, count, block_words);
  }

  // The group of the oldest stage; not less than the end that was given once all are done.
  __device__ uint32_t group() const { return next_ - params_.stages * stride_; }

  // Waits for the oldest stage. All lanes may then read it.
  __device__ const uint32_t* oldest(uint32_t count, uint32_t block_words) const {
    switch (params_.stages) {
      case 1: ptx::cp_async_wait<0>(); break;
      case 2: ptx::cp_async_wait<1>(); break;
      case 3: ptx::cp_async_wait<2>(); break;
      default: ptx::cp_async_wait<3>();
    }
    __syncwarp();
    return ring() + stage_ * count * block_words;
  }

  // Refills the oldest stage, once all of it has been read into registers, and goes on to the next.
  __device__ void advance(uint32_t count, uint32_t block_words) {
    __syncwarp();
    fetch(stage_, count, block_words);
    stage_ = stage_ + 1 == params_.stages ? 0 : stage_ + 1;
  }

 private:
  __device__ uint32_t* ring() const {
    return reinterpret_cast<uint32_t*>(ptx::dynamic_shared() + ptx::warp_index() * params_.ring_bytes);
  }

  __device__ void fetch(uint32_t stage, uint32_t count, uint32_t block_words) {
    constexpr uint32_t kWordsPerCopy = 4;
    if (next_ < end_) {
      const uint64_t strip_words = static_cast<uint64_t>(params_.k_groups) * block_words;
      for (uint32_t s = 0; s < count; ++s) {
        const uint32_t* from = blocks_ + s * strip_words + next_ * block_words;
        uint32_t* to = ring() + (stage * count + s) * block_words;
        for (uint32_t i = threadIdx.x % kLanes * kWordsPerCopy; i < block_words; i += kLanes * kWordsPerCopy) {
          ptx::cp_async_16(to + i, from + i);
        }
      }
    }
    next_ += stride_;
    // Also an empty group, so that their number tells which stage is complete.
    ptx::cp_async_commit();
  }

  const TrellinkLinear& params_;
  const uint32_t* blocks_;
  uint32_t stage_;
  uint32_t next_, end_, stride_;
};

}  // namespace trellink
