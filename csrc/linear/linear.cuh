// The fused linear kernel: input transform, decode, multiply, exchange, epilogue.
//
// Work is cut by output columns: a CTA owns neighbouring 16-column strips over the whole K of the
// rank's shard, its warps share K. So a partial sum leaves the CTA once, and the sum over ranks
// and the gathering of a 128-column group for the output transform are the same exchange.
#pragma once

#include "comm/exchange.cuh"
#include "linear/block_gemm.cuh"
#include "linear/finish.cuh"
#include "linear/input.cuh"
#include "linear/shared_layout.cuh"

namespace trellink {

// Adds up the warps' sums of `strips` strips and sends them. Column 0 of `first_column` is the
// first strip's first channel in the launch's numbering.
template <int kTokenBlocks>
__device__ __forceinline__ void reduce_and_push(const TrellinkLinear& params, const Exchange& exchange,
                                                const SharedLayout<kTokenBlocks>& shared, uint32_t strips,
                                                uint32_t slices, uint32_t first_token, uint32_t first_column) {
  constexpr uint32_t kPairs = kTile / 2;
  const uint64_t columns = static_cast<uint64_t>(params.strips) * kTile;
  for (uint32_t i = threadIdx.x; i < shared.tokens * strips * kPairs; i += blockDim.x) {
    const uint32_t channel = i % kPairs * 2;
    const uint32_t strip = i / kPairs % strips;
    const uint32_t token = i / kPairs / strips;
    float2 sum = make_float2(0, 0);
    for (uint32_t slice = 0; slice < slices; ++slice) {
      const float2 v = *reinterpret_cast<const float2*>(shared.sum(slice * strips + strip, token, channel));
      sum.x = __fadd_rn(sum.x, v.x);
      sum.y = __fadd_rn(sum.y, v.y);
    }
    exchange.push((first_token + token) * columns + first_column + strip * kTile + channel, sum.x, sum.y);
  }
}

// Computes and sends strips [strip, strip + strips) of a segment (strips <= kWarps), for one pass of tokens.
template <int kTokenBlocks>
__device__ __forceinline__ void compute_strips(const TrellinkLinear& params, const TrellinkSegment& segment,
                                               const Exchange& exchange, const SharedLayout<kTokenBlocks>& shared,
                                               uint32_t strip, uint32_t strips, uint32_t first_token,
                                               bool input_is_loaded) {
  const uint32_t warp = ptx::warp_index(), lane = threadIdx.x % 32;
  const uint32_t slices = kWarps / strips;
  const uint32_t slice = warp / strips;
  float acc[kTokenBlocks][4] = {};
  for (uint32_t chunk = 0; chunk < params.k_groups; chunk += shared.groups) {
    const uint32_t end = min(chunk + shared.groups, params.k_groups);
    if (!input_is_loaded) {
      __syncthreads();
      load_input(params, segment, shared, first_token, chunk, end - chunk);
      __syncthreads();
    }
    // The groups of a slice do not depend on where chunks begin, so neither does the sum.
    const uint32_t begin = chunk + (slices + slice - chunk % slices) % slices;
    StripGemm<kTokenBlocks> gemm{shared, reinterpret_cast<const uint32_t*>(segment.blocks),
                                 strip + warp % strips, params.k_groups, chunk,
                                 begin, slice < slices ? end : begin, slices, acc};
    dispatch_format(segment.codebook, segment.half_bits, gemm);
  }

  __syncthreads();
  const uint32_t channel = lane / kQuads;
#pragma unroll
  for (int n = 0; n < kTokenBlocks; ++n) {
    const uint32_t token = n * kMmaTokens + lane % kQuads * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) *shared.sum(warp, token + i % 2, channel + i / 2 * 8) = acc[n][i];
  }
  __syncthreads();
  reduce_and_push(params, exchange, shared, strips, slices, first_token,
                  (segment.first_strip + strip - params.first_strip) * kTile);
}

// Computes and sends this CTA's part of one segment, for one pass of tokens. Strips are numbered in the launch.
template <int kTokenBlocks>
__device__ __forceinline__ void compute_segment(const TrellinkLinear& params, const TrellinkSegment& segment,
                                                const Exchange& exchange, const SharedLayout<kTokenBlocks>& shared,
                                                uint32_t begin, uint32_t end, uint32_t first_token) {
  const bool one_chunk = params.k_groups <= shared.groups;
  for (uint32_t strip = begin; strip < end; strip += kWarps) {
    compute_strips(params, segment, exchange, shared, strip - segment.first_strip, min(end - strip, kWarps),
                   first_token, one_chunk && strip != begin);
  }
}

// The body of the kernel. params must be the kernel's __grid_constant__ parameter.
template <int kTokenBlocks>
__device__ __forceinline__ void linear(const TrellinkLinear& params) {
  const Exchange exchange(params.exchange);
  if (exchange.failed()) return;

  const uint64_t strips = params.strips;
  const uint32_t begin = params.first_strip + static_cast<uint32_t>(strips * blockIdx.x / gridDim.x);
  const uint32_t end = params.first_strip + static_cast<uint32_t>(strips * (blockIdx.x + 1) / gridDim.x);
  constexpr uint32_t kTokens = SharedLayout<kTokenBlocks>::kTokens;
  for (uint32_t token = 0; token < params.rows; token += kTokens) {
    const SharedLayout<kTokenBlocks> shared(ptx::dynamic_shared(), params.shared_bytes, min(params.rows - token, kTokens));
    for (uint32_t s = 0; s < params.segments; ++s) {
      const TrellinkSegment& segment = params.segment[s];
      const uint32_t first = max(begin, segment.first_strip);
      const uint32_t last = min(end, segment.first_strip + segment.strips);
      if (first < last) compute_segment(params, segment, exchange, shared, first, last, token);
    }
  }

  finish_rows(params, exchange);
  exchange.leave();
}

}  // namespace trellink
