// The output side of a column-parallel layer whose input is yet to be normalised, or whose two linears are a
// gate and what it lets through: out = epilogue(silu(gate) * up), rounded once.
//
// A row's RMSNorm is its product with one number, and the layer is linear: the number multiplies the sums of the
// row instead of its inputs. It comes from the sums of squares that another launch has left (norm.cuh), which
// every warp adds up for its item, in the order in which an RMSNorm there does: no wait, and the same bits.
//
// Whoever finishes a group of the gate's columns collects up's group too; up comes first, so that what is left
// is finished and stored as any output.
#pragma once

#include "linear/finish.cuh"

namespace trellink {

// 1 / sqrt(mean(x^2) + epsilon) of a row x of the input.
__device__ __forceinline__ float input_scale(const TrellinkLinear& params, uint32_t row, uint32_t lane) {
  const TrellinkColumns& columns = params.columns;
  const uint32_t groups = params.k_groups;
  const auto* squares = reinterpret_cast<const float*>(columns.squares) + static_cast<uint64_t>(row) * groups;
  float sum = 0;
#pragma unroll 1
  for (uint32_t group = lane; group < groups; group += 2 * kLanes) {
    // Two loads on their way together: all there are in rows of 8192.
    const float first = squares[group], second = group + kLanes < groups ? squares[group + kLanes] : 0.0f;
    sum = __fadd_rn(__fadd_rn(sum, first), second);
  }
  return __frsqrt_rn(__fmaf_rn(warp_sum(sum), columns.inverse_k, columns.epsilon));
}

// silu(x) * y with silu(x) = x / (1 + exp(-x)), 0 where exp(-x) is beyond f32 (x < -88). Relative error below
// 2^-21 + |x| 2^-24: that of the exponential, whose argument is rounded.
__device__ __forceinline__ float gated(float x, float y) {
  constexpr float kLog2E = 1.44269504f;
  const float denominator = __fadd_rn(1.0f, ptx::exp2(__fmul_rn(x, -kLog2E)));
  return __fmul_rn(__fmul_rn(x, ptx::reciprocal(denominator)), y);
}

// Finishes every item of this CTA, as finish_rows does, and goes through what TrellinkColumns says.
__device__ __forceinline__ void finish_columns(const TrellinkLinear& params, const Exchange& exchange) {
  constexpr uint32_t kGroupStrips = kGroup / kTile;
  const uint32_t warp = ptx::warp_index(), lane = threadIdx.x % kLanes;
  const uint32_t linears = params.columns.gated ? 2 : 1;
  const uint32_t row_groups = params.strips / kGroupStrips, groups = row_groups / linears;
  const uint32_t items = params.rows * groups;
  const uint32_t ctas = ptx::grid_ctas();
#pragma unroll 1
  for (uint32_t item = blockIdx.x + ctas * warp; item < items; item += ctas * kWarps) {
    const uint32_t row = quotient(item, groups);
    float scale = kHadamardScale;
    if (params.columns.squares) scale = __fmul_rn(scale, input_scale(params, row, lane));
    float v[4] = {0, 0, 0, 0}, up[4];
    // The same code for both: it comes from memory.
#pragma unroll 1
    for (uint32_t linear = linears; linear-- > 0;) {
      const uint32_t group = item - row * groups + linear * groups;
      const Finish<false> finish(params, params.first_strip + group * kGroupStrips, row, lane);
      // A failed call's outputs are void.
      if (!exchange.collect(static_cast<uint64_t>(row) * row_groups + group, lane, v)) return;
      finish.transform(v, lane, scale);
      if (linear > 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) up[i] = v[i];
      } else {
        if (linears > 1) {
#pragma unroll
          for (int i = 0; i < 4; ++i) v[i] = gated(v[i], up[i]);
        }
        finish.store(v);
      }
    }
  }
}

}  // namespace trellink
