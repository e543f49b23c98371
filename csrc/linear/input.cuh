// The input side of the layer: (x * suh) H, as the arithmetic's MMA operands in shared memory.
//
// There are two ways to transform. A launch begins with an empty instruction cache, so for few tokens
// short code that is run several times beats any clever one: a warp takes an item, a 128-channel group
// of a token, four channels a lane, and the transform is made of shuffles.
//
// For more tokens the tensor cores do it. A warp transforms eight items at a time: they are the rows of
// an A operand, and lane l of a quad holds channels 4l .. 4l+3 of every 16 of its row. The 128-point
// transform is one of 16 points, which the tensor core does, times one of 8, which is three rounds of
// additions between the lane's own registers. A product x * suh has up to 22 bits; it goes into the
// MMA as three bf16 terms, which hold all of them in f32's range, and H is exact: so this rounds as an
// f32 transform does.
//
// Each group of a token is scaled by itself, so that operands of few bits serve whatever range the
// activations have; what undoes the scaling is applied to the group's sums.
#pragma once

#include "format/hadamard.cuh"
#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// Four neighbouring activations as f32.
__device__ __forceinline__ void unpack4(uint2 packed, uint32_t dtype, float (&v)[4]) {
  const uint32_t words[2] = {packed.x, packed.y};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t half = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffffu;
    v[i] = dtype == TRELLINK_DTYPE_F16 ? ptx::f16_to_f32(half) : __uint_as_float(half << 16);
  }
}

// Four floats rounded to f16 or bf16.
__device__ __forceinline__ uint2 pack4(const float (&v)[4], uint32_t dtype) {
  return dtype == TRELLINK_DTYPE_F16 ? make_uint2(ptx::pack_f16x2(v[0], v[1]), ptx::pack_f16x2(v[2], v[3]))
                                     : make_uint2(ptx::pack_bf16x2(v[0], v[1]), ptx::pack_bf16x2(v[2], v[3]));
}

// A lane's part of the 16-point transform as B operands: for outputs 0..7 and for 8..15.
struct HadamardOperand {
  uint32_t b[2][2];

  __device__ explicit HadamardOperand(uint32_t lane) {
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n) {
      const uint32_t output = lane / kQuads + n * kMmaColumns, first = lane % kQuads * 4;
      b[n][0] = sign(first, output) | sign(first + 1, output) << 16;
      b[n][1] = sign(first + 2, output) | sign(first + 3, output) << 16;
    }
  }

 private:
  // An element of the Sylvester matrix, 1 or -1, in bf16.
  static __device__ uint32_t sign(uint32_t i, uint32_t j) {
    return 0x3f80u | static_cast<uint32_t>(__popc(i & j) & 1) << 15;
  }
};

// One lane's values of a transformed row: v[tile] holds channels 2q, 2q+1, 2q+8, 2q+9 of a tile, q
// being the lane's place in its quad. That is what the lane feeds to the MMAs with this row's token.
struct RowValues {
  float v[kBlockTiles][4];

  // The greatest magnitude of the row, as f32 bits: these are ordered as magnitudes are, NaN last.
  __device__ uint32_t magnitude() const {
    uint32_t greatest = 0;
#pragma unroll
    for (int i = 0; i < kBlockTiles * 4; ++i) greatest = max(greatest, __float_as_uint(v[i / 4][i % 4]) & 0x7fffffffu);
    greatest = max(greatest, __shfl_xor_sync(0xffffffffu, greatest, 1));
    return max(greatest, __shfl_xor_sync(0xffffffffu, greatest, 2));
  }
};

// Adds the 16-point transform of a lane's four products to its part of a tile.
__device__ __forceinline__ void transform_tile(const HadamardOperand& h, float (&product)[4], float (&tile)[4]) {
  float low[4] = {}, high[4] = {};
#pragma unroll
  for (int term = 0; term < 3; ++term) {
    const uint32_t a0 = ptx::pack_bf16x2(product[0], product[1]), a2 = ptx::pack_bf16x2(product[2], product[3]);
    ptx::mma_m16n8k16_bf16(low, a0, 0, a2, 0, h.b[0][0], h.b[0][1]);
    ptx::mma_m16n8k16_bf16(high, a0, 0, a2, 0, h.b[1][0], h.b[1][1]);
    const uint32_t terms[4] = {a0 << 16, a0 & 0xffff0000u, a2 << 16, a2 & 0xffff0000u};
#pragma unroll
    for (int i = 0; i < 4; ++i) product[i] = __fsub_rn(product[i], __uint_as_float(terms[i]));
  }
  tile[0] = low[0];
  tile[1] = low[1];
  tile[2] = high[0];
  tile[3] = high[1];
}

// The 8-point transform over the tiles of a row, and the scale that makes the whole orthonormal.
__device__ __forceinline__ void transform_across_tiles(RowValues& row) {
#pragma unroll
  for (int distance = 1; distance < kBlockTiles; distance *= 2) {
#pragma unroll
    for (int i = 0; i < kBlockTiles * 4; ++i) {
      const int tile = i / 4, value = i % 4;
      if (tile & distance) continue;
      const float a = row.v[tile][value], b = row.v[tile + distance][value];
      row.v[tile][value] = __fadd_rn(a, b);
      row.v[tile + distance][value] = __fsub_rn(a, b);
    }
  }
#pragma unroll
  for (int i = 0; i < kBlockTiles * 4; ++i) row.v[i / 4][i % 4] = __fmul_rn(row.v[i / 4][i % 4], kHadamardScale);
}

// What load_input is to do.
template <class Arithmetic>
struct InputWork {
  const TrellinkLinear& params;
  const uint16_t* suh;
  const SharedLayout<Arithmetic>& shared;
  uint32_t first_token, first_group, groups;

  // Channel `channel` of a group of a token.
  __device__ const uint16_t* x(uint32_t token, uint32_t group, uint32_t channel) const {
    return reinterpret_cast<const uint16_t*>(params.x) + (first_token + token) * params.x_stride +
           (first_group + group) * kGroup + channel;
  }
  __device__ const uint16_t* scales(uint32_t group, uint32_t channel) const {
    return suh + (first_group + group) * kGroup + channel;
  }
};

// A lane's part of an item as it is in memory, for the loads of the next one to overlap the work on this.
template <class Arithmetic>
struct RawItem {
  uint32_t token, group;
  uint2 x, scales;

  // Loads the item at `group`, which may lie beyond the token's groups; false if there is none.
  __device__ bool next(const InputWork<Arithmetic>& work, uint32_t channel) {
    while (group >= work.groups) {
      group -= work.groups;
      if (++token >= work.shared.tokens) return false;
    }
    x = *reinterpret_cast<const uint2*>(work.x(token, group, channel));
    scales = *reinterpret_cast<const uint2*>(work.scales(group, channel));
    return true;
  }
};

// An item a warp at a time, by shuffles.
template <class Arithmetic>
__device__ __forceinline__ void load_items(const InputWork<Arithmetic>& work) {
  const uint32_t lane = threadIdx.x % kLanes, channel = 4 * lane;
  RawItem<Arithmetic> item{0, ptx::warp_index(), {}, {}};
  bool more = item.next(work, channel);
#pragma unroll 1
  while (more) {
    const RawItem<Arithmetic> raw = item;
    item.group += kWarps;
    more = item.next(work, channel);
    float v[4], s[4];
    unpack4(raw.x, work.params.x_dtype, v);
    unpack4(raw.scales, TRELLINK_DTYPE_F16, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], s[i]);
    hadamard_128(v, lane);
    // Magnitudes of floats are ordered as their bits are, NaN last.
    uint32_t magnitude = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[i] = __fmul_rn(v[i], kHadamardScale);
      magnitude = max(magnitude, __float_as_uint(v[i]) & 0x7fffffffu);
    }
    Arithmetic::store_group(work.shared, v, ptx::redux_max(magnitude), raw.group, raw.token, lane);
  }
}

// Eight items a warp at a time, by MMAs.
template <class Arithmetic>
__device__ __forceinline__ void load_rows(const InputWork<Arithmetic>& work) {
  constexpr uint32_t kRows = kLanes / kQuads;
  const uint32_t lane = threadIdx.x % kLanes, quad = lane % kQuads;
  const HadamardOperand hadamard(lane);
  const uint32_t tokens = work.shared.tokens, items = tokens * work.groups;
#pragma unroll 1
  for (uint32_t first = ptx::warp_index() * kRows; first < items; first += kWarps * kRows) {
    // The rows of an item's group follow one another. Rows without an item repeat the last one.
    const uint32_t item = first + lane / kQuads, clamped = min(item, items - 1);
    const uint32_t token = clamped % tokens, group = clamped / tokens;
    const uint16_t* x = work.x(token, group, 4 * quad);
    const uint16_t* suh = work.scales(group, 4 * quad);
    RowValues row;
#pragma unroll
    for (int t = 0; t < kBlockTiles; ++t) {
      float product[4], s[4];
      unpack4(*reinterpret_cast<const uint2*>(x + t * kTile), work.params.x_dtype, product);
      unpack4(*reinterpret_cast<const uint2*>(suh + t * kTile), TRELLINK_DTYPE_F16, s);
#pragma unroll
      for (int i = 0; i < 4; ++i) product[i] = __fmul_rn(product[i], s[i]);
      transform_tile(hadamard, product, row.v[t]);
    }
    transform_across_tiles(row);
    Arithmetic::store_row(work.shared, row, group, token, quad, item < items);
  }
}

// Fills the shared input with groups [first_group, first_group + groups) of tokens
// [first_token, first_token + shared.tokens). By all warps of the CTA; the caller synchronises.
template <class Arithmetic>
__device__ __forceinline__ void load_input(const TrellinkLinear& params, const TrellinkSegment& segment,
                                           const SharedLayout<Arithmetic>& shared, uint32_t first_token, uint32_t first_group,
                                           uint32_t groups) {
  const InputWork<Arithmetic> work{params, reinterpret_cast<const uint16_t*>(segment.suh), shared, first_token,
                                   first_group, groups};
  if constexpr (Arithmetic::kFewTokens) {
    load_items(work);
  } else {
    load_rows(work);
  }
}

}  // namespace trellink
