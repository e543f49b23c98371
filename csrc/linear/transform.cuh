// The input transform as a launch of its own, for all CTAs of the linear launch behind it.
//
// Where a CTA would have to transform many groups, which every other CTA transforms as well, this is
// cheaper than doing so: the work is done once and handed round through L2.
#pragma once

#include "linear/input.cuh"
#include "linear/operands.cuh"
#include "linear/wide.cuh"

namespace trellink {

// What a warp transforms at a time: a group of eight tokens.
struct TransformItem {
  uint32_t segment, group, row;

  __device__ TransformItem(const TrellinkTransform& params, uint32_t item) {
    const uint32_t blocks = row_blocks(params), rest = item / params.k_groups;
    group = item % params.k_groups;
    row = rest % blocks * kMmaColumns;
    segment = rest / blocks;
  }
  static __device__ uint32_t count(const TrellinkTransform& params) {
    return params.segments * params.k_groups * row_blocks(params);
  }

 private:
  static __device__ uint32_t row_blocks(const TrellinkTransform& params) {
    return (params.rows + kMmaColumns - 1) / kMmaColumns;
  }
};

template <class Arithmetic, bool kBf16>
__device__ __forceinline__ void transform_items(const TrellinkTransform& params) {
  const uint32_t lane = threadIdx.x % kLanes, channel = lane % kQuads * 4;
  const HadamardSigns signs(lane);
  const uint32_t warps = gridDim.x * blockDim.x / kLanes, end = TransformItem::count(params);
#pragma unroll 1
  for (uint32_t i = blockIdx.x * (blockDim.x / kLanes) + ptx::warp_index(); i < end; i += warps) {
    const TransformItem item(params, i);
    const uint32_t pass = item.row / Arithmetic::kTokens;
    const Operands<Arithmetic> to(params, item.segment, pass);
    // Rows without a token repeat the last one.
    const uint32_t row = item.row + lane / kQuads, token = min(row, params.rows - 1);
    const auto* x = reinterpret_cast<const uint16_t*>(params.x) + token * params.x_stride;
    const auto* suh = reinterpret_cast<const uint16_t*>(params.suh[item.segment]);
    const uint32_t first = item.group * kGroup + channel;
    transform_rows<Arithmetic, kBf16>(signs, x + first, suh + first, to, item.group, row - pass * Arithmetic::kTokens,
                                      row < params.rows);
  }
}

template <bool kBf16>
__device__ __forceinline__ void transform_for(const TrellinkTransform& params) {
  switch (params.pass_tokens) {
    case Wide<1>::kTokens:
      return transform_items<Wide<1>, kBf16>(params);
    case Wide<2>::kTokens:
      return transform_items<Wide<2>, kBf16>(params);
    case Wide<4>::kTokens:
      return transform_items<Wide<4>, kBf16>(params);
    default:
      return transform_items<Wide<8>, kBf16>(params);
  }
}

// The body of the kernel. params must be the kernel's __grid_constant__ parameter.
__device__ __forceinline__ void transform(const TrellinkTransform& params) {
  // The launch behind this one may begin with its weights.
  ptx::launch_dependents();
  ptx::grid_dependency_wait();
  if (params.x_dtype == TRELLINK_DTYPE_F16) {
    transform_for<false>(params);
  } else {
    transform_for<true>(params);
  }
}

}  // namespace trellink
