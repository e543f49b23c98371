// Which sums a CTA finishes: items of a row and 128 columns, one a warp at a time.
//
// Where clusters own whole groups of 128 columns, each finishes its own, and what it has added up itself never leaves
// the SM. Else the sums of a group come together in the arena, this rank's own ones too, and neighbouring items go to
// different CTAs: all SMs poll, none for long.
#pragma once

#include "linear/cut.cuh"

namespace trellink {

class FinishItems {
 public:
  FinishItems() = default;
  // Those of this warp.
  __device__ FinishItems(const TrellinkLinear& params, const Cut& cut) : groups_(params.strips / kGroupStrips) {
    // Opaque, or the compiler keeps what it knows of the thread in registers through the main loop.
    const uint32_t warp = ptx::opaque(threadIdx.x) / kLanes;
    uint32_t cta = blockIdx.x, ctas = ptx::grid_ctas();
    first_group_ = 0;
    width_ = groups_;
    if (params.whole_groups) {
      ctas = params.k_splits;
      cta = ctas > 1 ? ptx::cluster_rank() : 0;
      first_group_ = (cut.begin - params.first_strip) / kGroupStrips;
      width_ = (cut.end - cut.begin) / kGroupStrips;
    }
    index_ = cta + ctas * warp;
    step_ = ctas * kWarps;
    end_ = params.rows * width_;
    locate();
  }

  __device__ bool more() const { return index_ < end_; }
  __device__ void next() {
    index_ += step_;
    locate();
  }
  // Whether there is none behind this one, and none before it.
  __device__ bool is_last() const { return index_ + step_ >= end_; }
  __device__ bool is_first() const { return index_ < step_; }
  __device__ void previous() {
    index_ -= step_;
    locate();
  }

  __device__ uint32_t row() const { return row_; }
  // Group of 128 columns of the launch.
  __device__ uint32_t group() const { return group_; }
  // Groups of the rows before, and of this one up to the item: its place in the message.
  __device__ uint32_t place() const { return row_ * groups_ + group_; }
  // Of a row.
  __device__ uint32_t groups() const { return groups_; }

  static constexpr uint32_t kGroupStrips = kGroup / kTile;

 private:
  __device__ void locate() {
    row_ = quotient(index_, width_);
    group_ = first_group_ + index_ - row_ * width_;
  }

  uint32_t groups_, first_group_, width_;
  uint32_t index_, step_, end_;
  uint32_t row_, group_;
};

}  // namespace trellink
