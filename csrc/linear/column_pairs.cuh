// What the two arithmetics for few tokens have in common: a token has two neighbouring columns of an MMA,
// a coarse part of its inputs and a fine one, so a lane's results of a strip are of one token.
#pragma once

#include "linear/shared_layout.cuh"
#include "linear/straight.cuh"

namespace trellink {

struct ColumnPairs : NotStraight {
  static constexpr int kTokens = kMmaColumns / 2;
  // Sums of token `lane % 4`, for channels lane / 4 and 8 more.
  struct Accumulator {
    float v[2] = {};
  };

  // Writes this warp's result of its strip'th strip to its place in the shared sums.
  template <class Shared>
  static __device__ __forceinline__ void store_sums(const Shared& shared, uint32_t strip, uint32_t lane,
                                                    const Accumulator& acc) {
    const uint32_t warp = ptx::warp_index();
#pragma unroll
    for (int i = 0; i < 2; ++i) *shared.sum(warp, strip, lane % kQuads, lane / kQuads + i * 8) = acc.v[i];
  }
};

}  // namespace trellink
