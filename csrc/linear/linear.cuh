// The fused linear kernel: input transform, decode, multiply, exchange, epilogue.
//
// Work is cut by output columns: a CTA owns neighbouring 16-column strips over the whole K of the
// rank's shard, its warps share K. So a partial sum leaves the CTA once, and the sum over ranks
// and the gathering of a 128-column group for the output transform are the same exchange.
//
// An arithmetic (formed.cuh, halves.cuh, bytes.cuh) says how weights and inputs meet:
//   Codebooks            the ones it serves
//   kTokens              tokens of a pass
//   kStrips              strips that a warp takes at once at up to kPairedHalfBits; beyond, one
//   kPrefetchWords       words of a lane up to which the next blocks are loaded ahead
//   kTokenGroupBytes     shared memory for a group of one token's inputs, and Scale beside it
//   store_group          writes a transformed group there
//   multiply             adds a block's products to an Accumulator
//   store_sums           writes an Accumulator to the shared sums
#pragma once

#include "comm/exchange.cuh"
#include "linear/bytes.cuh"
#include "linear/finish.cuh"
#include "linear/formed.cuh"
#include "linear/halves.cuh"
#include "linear/input.cuh"
#include "linear/strip_gemm.cuh"

namespace trellink {

// This CTA's part of one segment in one pass of tokens.
struct Piece {
  const TrellinkLinear& params;
  const TrellinkSegment& segment;
  const Exchange& exchange;
  uint32_t first_token, tokens;
  uint32_t begin, end;  // strips of the segment
};

// Adds up the warps' sums of `strips` strips from `strip` on and sends them.
template <class Arithmetic>
__device__ __forceinline__ void reduce_and_push(const Piece& piece, const SharedLayout<Arithmetic>& shared,
                                                uint32_t strip, uint32_t strips, uint32_t slices) {
  constexpr uint32_t kPairs = kTile / 2;
  const uint64_t columns = static_cast<uint64_t>(piece.params.strips) * kTile;
  const uint32_t first_column = (piece.segment.first_strip + strip - piece.params.first_strip) * kTile;
  for (uint32_t i = threadIdx.x; i < shared.tokens * strips * kPairs; i += blockDim.x) {
    const uint32_t channel = i % kPairs * 2;
    const uint32_t s = i / kPairs % strips;
    const uint32_t token = i / kPairs / strips;
    float2 sum = make_float2(0, 0);
    for (uint32_t slice = 0; slice < slices; ++slice) {
      const float2 v = *reinterpret_cast<const float2*>(shared.sum(slice * strips + s, token, channel));
      sum.x = __fadd_rn(sum.x, v.x);
      sum.y = __fadd_rn(sum.y, v.y);
    }
    piece.exchange.push((piece.first_token + token) * columns + first_column + s * kTile + channel, sum.x, sum.y);
  }
}

// Computes and sends strips [strip, strip + strips), kCount to a warp, strips a multiple of it.
template <class Arithmetic, int kCount>
__device__ __forceinline__ void compute_strips(const Piece& piece, const SharedLayout<Arithmetic>& shared,
                                               uint32_t strip, uint32_t strips, bool input_is_loaded) {
  const uint32_t warp = ptx::warp_index(), lane = threadIdx.x % 32;
  const uint32_t k_groups = piece.params.k_groups;
  const uint32_t slots = strips / kCount;
  const uint32_t slices = kWarps / slots;
  const uint32_t slice = warp / slots, slot = warp % slots;
  typename Arithmetic::Accumulator acc[kCount];
  for (uint32_t chunk = 0; chunk < k_groups; chunk += shared.groups) {
    const uint32_t end = min(chunk + shared.groups, k_groups);
    if (!input_is_loaded) {
      __syncthreads();
      load_input(piece.params, piece.segment, shared, piece.first_token, chunk, end - chunk);
      __syncthreads();
    }
    // The groups of a slice do not depend on where chunks begin, so neither does the sum.
    const uint32_t begin = chunk + (slices + slice - chunk % slices) % slices;
    StripGemm<Arithmetic, kCount> gemm{shared,
                                       reinterpret_cast<const uint32_t*>(piece.segment.blocks),
                                       strip + slot * kCount,
                                       k_groups,
                                       chunk,
                                       begin,
                                       slice < slices ? end : begin,
                                       slices,
                                       acc};
    Arithmetic::Codebooks::run(piece.segment.codebook, piece.segment.half_bits, gemm);
  }

  __syncthreads();
  if (slice < slices) {
#pragma unroll
    for (int s = 0; s < kCount; ++s) {
      Arithmetic::store_sums(shared, slice * strips + slot * kCount + s, lane, acc[s]);
    }
  }
  __syncthreads();
  reduce_and_push(piece, shared, strip, strips, slices);
}

template <class Arithmetic>
__device__ __forceinline__ void compute_piece(const Piece& piece) {
  const SharedLayout<Arithmetic> shared(ptx::dynamic_shared(), piece.params.shared_bytes, piece.tokens);
  const bool one_chunk = piece.params.k_groups <= shared.groups;
  const bool paired = piece.segment.half_bits <= Arithmetic::kPairedHalfBits;
  const uint32_t most = paired ? kWarps * Arithmetic::kStrips : kWarps;
  for (uint32_t strip = piece.begin; strip < piece.end; strip += most) {
    const uint32_t strips = min(piece.end - strip, most);
    const bool loaded = one_chunk && strip != piece.begin;
    if (paired) {
      compute_strips<Arithmetic, Arithmetic::kStrips>(piece, shared, strip, strips, loaded);
    } else {
      compute_strips<Arithmetic, 1>(piece, shared, strip, strips, loaded);
    }
  }
}

// The body of a kernel. params must be the kernel's __grid_constant__ parameter.
template <class Arithmetic>
__device__ __forceinline__ void linear(const TrellinkLinear& params) {
  const Exchange exchange(params.exchange);
  if (exchange.failed()) return;

  // Strips that a warp takes at once stay together.
  constexpr uint32_t kUnit = Arithmetic::kStrips, kTokens = Arithmetic::kTokens;
  const uint64_t units = params.strips / kUnit;
  const uint32_t begin = params.first_strip + kUnit * static_cast<uint32_t>(units * blockIdx.x / gridDim.x);
  const uint32_t end = params.first_strip + kUnit * static_cast<uint32_t>(units * (blockIdx.x + 1) / gridDim.x);
  for (uint32_t token = 0; token < params.rows; token += kTokens) {
    for (uint32_t s = 0; s < params.segments; ++s) {
      const TrellinkSegment& segment = params.segment[s];
      const uint32_t first = max(begin, segment.first_strip);
      const uint32_t last = min(end, segment.first_strip + segment.strips);
      if (first >= last) continue;
      const Piece piece{params, segment, exchange, token, min(params.rows - token, kTokens),
                        first - segment.first_strip, last - segment.first_strip};
      compute_piece<Arithmetic>(piece);
    }
  }

  finish_rows(params, exchange);
  exchange.leave();
}

}  // namespace trellink
