// The input side of the layer: (x * suh) H, as the arithmetic's MMA operands in shared memory.
//
// There are two ways to transform. What a launch does once takes as long as its instructions, so for few tokens
// short code that is run several times beats any clever one: a warp takes an item, a 128-channel group
// of a token, four channels a lane, and the transform is made of shuffles.
//
// For more tokens the tensor cores do it. A warp transforms a group of eight tokens at a time: they are the
// rows of an A operand, as they are in memory, and lane l of a quad holds channels 4l .. 4l+3 of every 16 of
// its row. The 128-point transform is one of 16 points, which the tensor core does, times one of 8, which is
// three rounds of additions between the lane's own registers. The input scales have their place in the B
// operand, as the magnitudes of H: products of two fp16 are exact, so this rounds as an f32 transform does.
// For bf16 inputs the scales become two bf16 terms, which hold them exactly.
//
// Each group of a token is scaled by itself, so that operands of few bits serve whatever range the
// activations have; what undoes the scaling is applied to the group's sums.
#pragma once

#include "format/hadamard.cuh"
#include "linear/shared_layout.cuh"
#include "ptx/ptx.cuh"

namespace trellink {

// Four neighbouring activations, or scales, as they lie in memory.
__device__ __forceinline__ uint2 load4(const uint16_t* from) { return *reinterpret_cast<const uint2*>(from); }

// The same as f32.
__device__ __forceinline__ void unpack4(uint2 packed, uint32_t dtype, float (&v)[4]) {
  const bool f16 = dtype == TRELLINK_DTYPE_F16;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t pair = i == 0 ? packed.x : packed.y;
    v[i] = f16 ? ptx::f16_to_f32(pair) : __uint_as_float(pair << 16);
    v[i + 1] = f16 ? ptx::f16_to_f32(pair >> 16) : __uint_as_float(pair & 0xffff0000u);
  }
}

// Four floats rounded to f16 or bf16.
__device__ __forceinline__ uint2 pack4(const float (&v)[4], uint32_t dtype) {
  return dtype == TRELLINK_DTYPE_F16 ? make_uint2(ptx::pack_f16x2(v[0], v[1]), ptx::pack_f16x2(v[2], v[3]))
                                     : make_uint2(ptx::pack_bf16x2(v[0], v[1]), ptx::pack_bf16x2(v[2], v[3]));
}

// Four neighbouring elements of any dtype as they are in memory, so that loads of several overlap.
struct Raw4 {
  uint2 low, high;

  static __device__ __forceinline__ Raw4 load(uint64_t base, uint64_t element, uint32_t dtype) {
    const bool wide = dtype == TRELLINK_DTYPE_F32;
    const auto* from = reinterpret_cast<const uint2*>(base + element * (wide ? sizeof(float) : sizeof(uint16_t)));
    return {from[0], wide ? from[1] : make_uint2(0, 0)};
  }

  __device__ __forceinline__ void unpack(uint32_t dtype, float (&v)[4]) const {
    const uint32_t words[4] = {low.x, low.y, high.x, high.y};
    unpack4(low, dtype, v);
    if (dtype != TRELLINK_DTYPE_F32) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __uint_as_float(words[i]);
  }
};

// The signs of a lane's part of the 16-point transform, for outputs 0..7 and for 8..15.
struct HadamardSigns {
  uint32_t b[2][2];

  __device__ explicit HadamardSigns(uint32_t lane) {
#pragma unroll
    for (uint32_t n = 0; n < 2; ++n) {
      const uint32_t output = lane / kQuads + n * kMmaColumns, first = lane % kQuads * 4;
      b[n][0] = sign(first, output) | sign(first + 1, output) << 16;
      b[n][1] = sign(first + 2, output) | sign(first + 3, output) << 16;
    }
  }

 private:
  // The sign bit of an element of the Sylvester matrix.
  static __device__ uint32_t sign(uint32_t i, uint32_t j) { return static_cast<uint32_t>(__popc(i & j) & 1) << 15; }
};

// One lane's values of a transformed row: v[tile] holds channels 2q, 2q+1, 2q+8, 2q+9 of a tile, q
// being the lane's place in its quad. That is what the lane feeds to the MMAs with this row's token, once it is
// scaled: kHadamardScale is left to be multiplied together with another scale.
struct RowValues {
  float v[kBlockTiles][4];

  // The greatest magnitude of the row; NaN if there is one.
  __device__ float magnitude() const {
    float greatest = 0;
#pragma unroll
    for (int i = 0; i < kBlockTiles * 4; ++i) greatest = ptx::greater_magnitude(greatest, v[i / 4][i % 4]);
    greatest = ptx::greater_magnitude(greatest, __shfl_xor_sync(0xffffffffu, greatest, 1));
    return ptx::greater_magnitude(greatest, __shfl_xor_sync(0xffffffffu, greatest, 2));
  }
};

// Two scales in fp16 as the sum of two pairs in bf16.
struct SplitScales {
  uint32_t high, low;

  __device__ explicit SplitScales(uint32_t scales) {
    const float x = ptx::f16_to_f32(scales & 0xffffu), y = ptx::f16_to_f32(scales >> 16);
    high = ptx::pack_bf16x2(x, y);
    low = ptx::pack_bf16x2(__fsub_rn(x, __uint_as_float(high << 16)), __fsub_rn(y, __uint_as_float(high & 0xffff0000u)));
  }
};

// A lane's part of the 16-point transform of a tile times its channels' input scales, as B operands for outputs 0..7 and
// for 8..15. For bf16 inputs in two terms.
template <bool kBf16>
struct TileOperand {
  static constexpr int kTerms = kBf16 ? 2 : 1;
  uint2 b[2][kTerms];

  TileOperand() = default;
  __device__ __forceinline__ TileOperand(const HadamardSigns& h, uint2 scales) {
    uint2 term[kTerms];
    if constexpr (kBf16) {
      const SplitScales first(scales.x), second(scales.y);
      term[0] = make_uint2(first.high, second.high);
      term[1] = make_uint2(first.low, second.low);
    } else {
      term[0] = scales;
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < kTerms; ++i) b[n][i] = make_uint2(term[i].x ^ h.b[n][0], term[i].y ^ h.b[n][1]);
    }
  }
};

// The 16-point transform of x * scales of a tile: of a lane's row, what RowValues holds.
template <bool kBf16>
__device__ __forceinline__ void transform_tile(const TileOperand<kBf16>& operand, uint2 x, float (&tile)[4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    // Rows 8 to 15 are zero.
    float sum[4] = {};
#pragma unroll
    for (const uint2 b : operand.b[n]) {
      if constexpr (kBf16) {
        ptx::mma_m16n8k16_bf16(sum, x.x, 0, x.y, 0, b.x, b.y);
      } else {
        ptx::mma_m16n8k16_f16(sum, x.x, 0, x.y, 0, b.x, b.y);
      }
    }
    tile[2 * n] = sum[0];
    tile[2 * n + 1] = sum[1];
  }
}

// The 8-point transform over the tiles of a row.
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
}

// What a lane needs of a group's input scales, tile by tile. `suh` points at channel 4q of the group, q being the lane's
// place in its quad.
template <bool kBf16>
struct GroupScales {
  const HadamardSigns& signs;
  const uint16_t* suh;

  __device__ __forceinline__ TileOperand<kBf16> operator[](int tile) const { return {signs, load4(suh + tile * kTile)}; }
};

// The same in registers, where there are some.
template <bool kBf16>
struct LoadedScales {
  TileOperand<kBf16> tile[kBlockTiles];

  __device__ __forceinline__ explicit LoadedScales(const GroupScales<kBf16>& scales) {
#pragma unroll
    for (int t = 0; t < kBlockTiles; ++t) tile[t] = scales[t];
  }
  __device__ __forceinline__ const TileOperand<kBf16>& operator[](int t) const { return tile[t]; }
};

// Transforms a group of eight tokens, of which the lane has a row, and stores it as operands. `x` points at channel 4q
// of the lane's row; `exists`: the row is a token and not a filler.
template <class Arithmetic, class Scales, class Layout>
__device__ __forceinline__ void transform_rows(const uint16_t* x, const Scales& scales, const Layout& to, uint32_t group,
                                               uint32_t token, bool exists) {
  RowValues row;
#pragma unroll
  for (int t = 0; t < kBlockTiles; ++t) transform_tile(scales[t], load4(x + t * kTile), row.v[t]);
  transform_across_tiles(row);
  Arithmetic::store_row(to, row, group, token, threadIdx.x % kQuads, exists);
}

// What load_input is to do.
template <class Arithmetic>
struct InputWork {
  const TrellinkLinear& params;
  const TrellinkSegment& segment;
  const typename Arithmetic::Shared& shared;
  uint32_t first_token, first_group, groups;

  // Channel `channel` of a group of a token.
  __device__ const uint16_t* x(uint32_t token, uint32_t group, uint32_t channel) const {
    return reinterpret_cast<const uint16_t*>(params.x) + (first_token + token) * params.x_stride +
           (first_group + group) * kGroup + channel;
  }
  __device__ const uint16_t* scales(uint32_t group, uint32_t channel) const {
    return reinterpret_cast<const uint16_t*>(segment.suh) + (first_group + group) * kGroup + channel;
  }
};

// Where a warp is among the groups of so many tokens at a time.
struct InputPlace {
  uint32_t token, group;

  // Goes on to the group, which may lie beyond the tokens' groups; false if there is none.
  template <uint32_t kTokens, class Work>
  __device__ bool settle(const Work& work) {
    while (group >= work.groups) {
      group -= work.groups;
      token += kTokens;
      if (token >= work.shared.tokens) return false;
    }
    return true;
  }
};

// What of a warp's first item does not depend on another launch, so that it is there, or on its way from memory, before
// that has ended: nothing in general, for which the transform by MMAs has no registers.
template <class Arithmetic, bool kFewTokens = Arithmetic::kFewTokens>
struct FirstItem {
  FirstItem() = default;
  __device__ explicit FirstItem(const InputWork<Arithmetic>&) {}
  __device__ void load() {}
};

template <class Arithmetic>
struct FirstItem<Arithmetic, true> {
  InputPlace place{0, ptx::warp_index()};
  bool exists = false;
  const uint16_t *x_from, *scales_from;  // of the lane
  uint2 x{}, scales;

  FirstItem() = default;
  __device__ __forceinline__ explicit FirstItem(const InputWork<Arithmetic>& work)
      : exists(place.template settle<1>(work)) {
    const uint32_t channel = threadIdx.x % kLanes * 4;
    x_from = work.x(place.token, place.group, channel);
    scales_from = work.scales(place.group, channel);
    if (exists) scales = load4(scales_from);
  }

  // What does depend on it. Behind the wait, before anything else there.
  __device__ __forceinline__ void load() {
    if (exists) x = load4(x_from);
  }
};

// A warp's walk over its items, and where a lane has x, scales and operands of them. What stays the same is opaque, or the
// compiler finds it out anew for every item (docs/performance.md).
template <class Arithmetic>
class ItemWalk {
 public:
  __device__ __forceinline__ ItemWalk(const InputWork<Arithmetic>& work, const FirstItem<Arithmetic>& first, uint32_t lane)
      : x_(first.x_from), scales_(first.scales_from), group_(first.place.group), token_(first.place.token),
        groups_(ptx::opaque(work.groups)), shared_(work.shared),
        operands_(ptx::opaque_shared(Arithmetic::lane_operands(shared_, lane))),
        scale_(ptx::opaque_shared(shared_.scale(0, 0))) {
    shared_.group_bytes = ptx::opaque(shared_.group_bytes);
    token_step_ = static_cast<int64_t>(work.params.x_stride) - groups_ * static_cast<int64_t>(kGroup);
  }

  __device__ const uint16_t* x() const { return x_; }
  __device__ const uint16_t* scales() const { return scales_; }
  __device__ unsigned char* operands() const { return operands_ + shared_.operands_offset(group_, token_); }
  __device__ typename Arithmetic::Scale* scale() const { return shared_.after(scale_, shared_.scale_offset(group_, token_)); }

  // Goes on to the warp's next item; false if there is none.
  __device__ __forceinline__ bool next() {
    x_ += kWarps * kGroup;
    scales_ += kWarps * kGroup;
    group_ += kWarps;
    while (__builtin_expect(group_ >= groups_, false)) {
      if (++token_ == shared_.tokens) return false;
      group_ -= groups_;
      x_ += token_step_;
      scales_ -= groups_ * kGroup;
    }
    return true;
  }

 private:
  const uint16_t *x_, *scales_;
  uint32_t group_, token_, groups_;
  typename Arithmetic::Shared shared_;
  unsigned char* operands_;
  typename Arithmetic::Scale* scale_;
  int64_t token_step_;
};

// An item a warp at a time, by shuffles. The loads of the next one overlap the work on this. `first` has been loaded.
template <class Arithmetic>
__device__ __forceinline__ void load_items(const InputWork<Arithmetic>& work, const FirstItem<Arithmetic>& first) {
  const uint32_t lane = threadIdx.x % kLanes;
  HadamardLane hadamard(lane);
  hadamard.keep();
  ItemWalk<Arithmetic> walk(work, first, lane);
  bool more = first.exists;
  uint2 x = first.x, scales = first.scales;
#pragma unroll 1
  while (more) {
    unsigned char* operands = walk.operands();
    auto* scale = walk.scale();
    float v[4], s[4];
    unpack4(x, work.params.x_dtype, v);
    unpack4(scales, TRELLINK_DTYPE_F16, s);
    more = walk.next();
    if (more) {
      x = load4(walk.x());
      scales = load4(walk.scales());
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __fmul_rn(v[i], s[i]);
    hadamard.transform(v);
    float magnitude = ptx::greater_magnitude(v[0], v[1]);
#pragma unroll
    for (int i = 2; i < 4; ++i) magnitude = ptx::greater_magnitude(magnitude, v[i]);
    // Magnitudes of floats are ordered as their bits are, NaN last.
    Arithmetic::store_group(operands, scale, v, ptx::redux_max(__float_as_uint(magnitude)), lane);
  }
}

// A group of eight tokens a warp at a time, by MMAs.
template <class Arithmetic, bool kBf16>
__device__ __forceinline__ void load_rows(const InputWork<Arithmetic>& work) {
  const uint32_t lane = threadIdx.x % kLanes, channel = lane % kQuads * 4;
  const HadamardSigns signs(lane);
  const uint32_t tokens = work.shared.tokens;
#pragma unroll 1
  for (InputPlace place{0, ptx::warp_index()}; place.settle<kMmaColumns>(work); place.group += kWarps) {
    // Rows without a token repeat the last one.
    const uint32_t row = place.token + lane / kQuads, token = min(row, tokens - 1);
    const uint16_t* x = work.x(token, place.group, channel);
    const GroupScales<kBf16> scales{signs, work.scales(place.group, channel)};
    transform_rows<Arithmetic>(x, scales, work.shared, place.group, row, row < tokens);
  }
}

// Fills the shared input with groups [first_group, first_group + groups) of tokens
// [first_token, first_token + shared.tokens). `first`: the work's, loaded. By all warps of the CTA; the caller synchronises.
template <class Arithmetic>
__device__ __forceinline__ void load_input(const InputWork<Arithmetic>& work, const FirstItem<Arithmetic>& first) {
  if constexpr (Arithmetic::kFewTokens) {
    load_items(work, first);
  } else {
    if (work.params.x_dtype == TRELLINK_DTYPE_F16) {
      load_rows<Arithmetic, false>(work);
    } else {
      load_rows<Arithmetic, true>(work);
    }
  }
}

}  // namespace trellink
