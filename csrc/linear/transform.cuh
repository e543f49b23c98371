// The input transform as a launch of its own, for all CTAs of the linear launch behind it.
//
// Where a CTA would have to transform many groups, which every other CTA transforms as well, this is
// cheaper than doing so: the work is done once and handed round through L2.
#pragma once

#include "linear/formed.cuh"
#include "linear/input.cuh"
#include "linear/operands.cuh"

namespace trellink {

// What a warp transforms at a time: a group of eight tokens of a pass.
struct TransformItem {
  uint32_t segment, group, row;

  __device__ TransformItem(const TrellinkTransform& params, uint32_t item) {
    const uint32_t blocks = (params.rows + kMmaColumns - 1) / kMmaColumns;
    group = item % params.k_groups;
    const uint32_t rest = item / params.k_groups;
    row = rest % blocks * kMmaColumns;
    segment = rest / blocks;
  }
  static __device__ uint32_t count(const TrellinkTransform& params) {
    return params.segments * params.k_groups * ((params.rows + kMmaColumns - 1) / kMmaColumns);
  }
};

template <bool kBf16>
__device__ __forceinline__ void transform_items(const TrellinkTransform& params) {
  // All arithmetics on formed weights have the same operands.
  using Arithmetic = Formed<1>;
  const uint32_t lane = threadIdx.x % kLanes, channel = lane % kQuads * 4;
  const HadamardSigns signs(lane);
  const uint32_t warps = gridDim.x * blockDim.x / kLanes, end = TransformItem::count(params);
#pragma unroll 1
  for (uint32_t i = blockIdx.x * (blockDim.x / kLanes) + ptx::warp_index(); i < end; i += warps) {
    const TransformItem item(params, i);
    const uint32_t pass = item.row / params.pass_tokens * params.pass_tokens;
    const Operands<Arithmetic> to(params, item.segment, pass, min(params.pass_tokens, params.rows - pass));
    // Passes are whole rows of MMAs, so rows of an item that are no tokens lie behind the last one.
    const uint32_t row = item.row + lane / kQuads, token = min(row, params.rows - 1);
    const auto* x = reinterpret_cast<const uint16_t*>(params.x) + token * params.x_stride;
    const auto* suh = reinterpret_cast<const uint16_t*>(params.suh[item.segment]);
    const uint32_t first = item.group * kGroup + channel;
    transform_rows<Arithmetic, kBf16>(signs, x + first, suh + first, to, item.group, row - pass, row < params.rows);
  }
}

// The body of the kernel. params must be the kernel's __grid_constant__ parameter.
__device__ __forceinline__ void transform(const TrellinkTransform& params) {
  // The launch behind this one may begin with its weights.
  ptx::launch_dependents();
  ptx::grid_dependency_wait();
  if (params.x_dtype == TRELLINK_DTYPE_F16) {
    transform_items<false>(params);
  } else {
    transform_items<true>(params);
  }
}

}  // namespace trellink
