// The input transform as a launch of its own, for all CTAs of the linear launch behind it.
//
// Where a CTA would have to transform many groups, which every other CTA transforms as well, this is
// cheaper than doing so: the work is done once and handed round through L2.
#pragma once

#include "linear/input.cuh"
#include "linear/operands.cuh"
#include "linear/quotient.cuh"
#include "linear/wide.cuh"

namespace trellink {

// The body of a kernel: a warp transforms a group of eight tokens, a CTA neighbouring ones. There is a kernel for each
// layout and dtype, and no loop: of code that runs once, what chooses and what counts takes as long as what is
// chosen. params must be the kernel's __grid_constant__ parameter.
template <class Arithmetic, bool kBf16>
__device__ __forceinline__ void transform(const TrellinkTransform& params) {
  constexpr uint32_t kWarpsOfCta = TRELLINK_TRANSFORM_THREADS / kLanes;
  // The launch behind this one may begin with its weights.
  ptx::launch_dependents();
  const uint32_t ctas = (params.k_groups + kWarpsOfCta - 1) / kWarpsOfCta, blocks = (params.rows + kMmaColumns - 1) / kMmaColumns;
  const uint32_t lane = threadIdx.x % kLanes, channel = lane % kQuads * 4;
  const HadamardSigns signs(lane);
  uint32_t block = quotient(blockIdx.x, ctas), segment = 0;
  const uint32_t group = (blockIdx.x - block * ctas) * kWarpsOfCta + ptx::warp_index();
  if (params.segments > 1) {
    segment = quotient(block, blocks);
    block -= segment * blocks;
  }
  // Rows without a token repeat the last one.
  const uint32_t row = block * kMmaColumns + lane / kQuads, token = min(row, params.rows - 1);
  const uint32_t pass = block * kMmaColumns / Arithmetic::kTokens, first = group * kGroup + channel;
  const Operands<Arithmetic> to(params, segment, pass);
  const auto* x = reinterpret_cast<const uint16_t*>(params.x) + token * params.x_stride + first;
  // CTAs of the last cluster may be left over.
  if (group >= params.k_groups || block >= blocks || segment >= params.segments) return;
  // The scales come from memory, and do not depend on another launch; nor does what is made of them.
  const GroupScales<kBf16> near{signs, reinterpret_cast<const uint16_t*>(params.suh[segment]) + first};
  const LoadedScales<kBf16> scales(near);
  // A loop, though it ends at once: or ptxas does behind the wait what stands before it.
  do {
    ptx::grid_dependency_wait();
  } while (params.rows == 0);
  transform_rows<Arithmetic>(x, scales, to, group, row - pass * Arithmetic::kTokens, row < params.rows);
}

}  // namespace trellink
