// What the slices of K have left in shared memory, and which of it a thread adds up.
#pragma once

#include "linear/cut.cuh"
#include "linear/finish_items.cuh"

namespace trellink {

// Adds up neighbouring sums over all slices of a CTA and over the CTAs of its cluster: kSlices of one, as many of the next,
// then the next ones of both. kAtOnce: the loads of both overlap, which takes registers.
template <bool kAtOnce>
class SliceSums {
 public:
  __device__ SliceSums(const TrellinkLinear& params, const Share& share)
      : stride_(share.slots * params.warp_bytes / sizeof(float)), slices_(share.slices), splits_(params.k_splits) {}

  // `first`: where this CTA has those of its first slice.
  template <class Sums>
  __device__ __forceinline__ Sums add(const float* first) const {
    Sums sum{};
    if (!kAtOnce || splits_ == 1) {
#pragma unroll 1
      for (uint32_t slice = 0; slice < slices_; slice += kSlices) {
#pragma unroll 1
        for (uint32_t split = 0; split < splits_; ++split) {
          add<1>({splits_ > 1 ? ptx::shared_of_rank(first, split) : first}, slice, sum);
        }
      }
    } else {
#pragma unroll 1
      for (uint32_t slice = 0; slice < slices_; slice += kSlices) {
        add<2>({ptx::shared_of_rank(first, 0), ptx::shared_of_rank(first, 1)}, slice, sum);
      }
    }
    return sum;
  }

 private:
  static constexpr uint32_t kSlices = 4;

  template <uint32_t kSplits>
  struct Places {
    const float* of[kSplits];
  };

  // Those of slices [slice, slice + kSlices).
  template <uint32_t kSplits, class Sums>
  __device__ __forceinline__ void add(const Places<kSplits>& first, uint32_t slice, Sums& sum) const {
    Sums v[kSplits][kSlices];
#pragma unroll
    for (uint32_t split = 0; split < kSplits; ++split) {
#pragma unroll
      for (uint32_t i = 0; i < kSlices; ++i) {
        const auto* from = reinterpret_cast<const Sums*>(first.of[split] + (slice + i) * stride_);
        v[split][i] = slice + i < slices_ ? *from : Sums{};
      }
    }
#pragma unroll
    for (uint32_t split = 0; split < kSplits; ++split) {
#pragma unroll
      for (uint32_t i = 0; i < kSlices; ++i) {
        if (slice + i < slices_) sum = added(sum, v[split][i]);
      }
    }
  }

  static __device__ __forceinline__ float2 added(float2 a, float2 b) {
    return make_float2(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y));
  }
  static __device__ __forceinline__ float4 added(float4 a, float4 b) {
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
  }

  uint32_t stride_, slices_, splits_;
};

// The pairs of neighbouring sums of a piece that a thread adds up, one at a time. Each CTA of the cluster does a part, but
// of few of them the first does all. Two values a thread: then all that a warp sends goes in one store. With four, in
// two stores, the exchange of many rows takes twice as long.
template <class Arithmetic>
class SumPairs {
 public:
  SumPairs() = default;
  __device__ __forceinline__ SumPairs(const TrellinkLinear& params, const Piece<Arithmetic>& piece, uint32_t strips_log2)
      : shared_(params, piece.tokens), strips_(piece.strips), strips_log2_(strips_log2), first_token_(piece.first_token),
        first_strip_(piece.strip - params.first_strip), runs_(params.strips / kRunStrips) {
    // Opaque, or the compiler keeps what it knows of the thread in registers through the main loop.
    const uint32_t thread = ptx::opaque(threadIdx.x), splits = params.k_splits;
    lane_ = thread % kLanes;
    index_ = (splits > 1 ? ptx::cluster_rank() : 0) * blockDim.x + thread;
    step_ = splits * blockDim.x;
    end_ = piece.tokens * piece.strips * kPairs;
    locate();
  }

  // Whether there is one more for a lane of the warp.
  __device__ bool more() const { return index_ - lane_ < end_; }
  // Whether there is one for this lane.
  __device__ bool has() const { return index_ < end_; }
  __device__ void next() {
    index_ += step_;
    if (more()) locate();
  }

  // Where the pair of the first slice lies.
  __device__ const float* first() const { return first_; }
  // The run of the message that it belongs to, and its strip there.
  __device__ uint64_t run() const { return run_; }
  __device__ uint32_t strip() const { return strip_; }

 private:
  static constexpr uint32_t kPairs = kTile / 2, kRunStrips = FinishItems::kGroupStrips;
  static_assert(Arithmetic::kStrips <= 2, "a warp has one strip or two");

  __device__ __forceinline__ void locate() {
    const uint32_t i = has() ? index_ : 0;
    const uint32_t channel = i % kPairs * 2, token = quotient(i / kPairs, strips_);
    const uint32_t strip = i / kPairs - token * strips_, of_row = first_strip_ + strip;
    first_ = shared_.sum(strip >> strips_log2_, strip & ((1u << strips_log2_) - 1), token, channel);
    run_ = static_cast<uint64_t>(first_token_ + token) * runs_ + of_row / kRunStrips;
    strip_ = of_row % kRunStrips;
  }

  SharedLayout<Arithmetic> shared_;
  uint32_t strips_, strips_log2_, first_token_, first_strip_, runs_;
  uint32_t index_, step_, end_, lane_;
  const float* first_;
  uint64_t run_;
  uint32_t strip_;
};

}  // namespace trellink
