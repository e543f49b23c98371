// The arithmetic of byte sums, for mul1 and few tokens.
//
// The weight is an affine function of the sum of the scrambled word's four bytes. The word is used as
// it is, as four neighbouring K entries of an unsigned A operand, with the input in all four as a
// signed byte: the tensor core adds the bytes. An input is a 16-bit integer, relative to the greatest
// of its group, in a high and a low byte; the two take neighbouring columns, so an MMA serves four
// tokens. All sums of a group are exact integers: the error is that of the input's 16 bits (3e-5)
// and of not rounding the weight to fp16 as the format does (a relative 2^-12).
//
// With x = 256 h + l and b the byte sum, a group's result is
//   sum x (887 b - 452608) / 2^17  =  887 / 2^17 * (256 sum h b + sum l b - 452608/887 sum x).
// The accumulators start with the last term, rounded to an integer, so that what is converted to
// f32 is the centred sum: it fits 32 bits (|b - 510.27| <= 510.27, 128 inputs of at most 32639).
#pragma once

#include "format/hadamard.cuh"
#include "linear/column_pairs.cuh"
#include "linear/decode.cuh"
#include "linear/shared_layout.cuh"

namespace trellink {

struct Bytes : ColumnPairs {
  using Codebooks = Dispatch<Codebook::kMul1>;
  // Two strips of more words would not leave enough registers.
  static constexpr int kStrips = 2;
  static constexpr int kPairedHalfBits = 8;
  static constexpr int kWarpsTogether = 1;
  static constexpr uint32_t kHeldTokens = 0;
  static constexpr bool kSpans = false;
  static constexpr bool kTransforms = true;
  static constexpr bool kFewTokens = true;
  static constexpr uint32_t kColumnBytes = kGroup * 4 + 64;
  static constexpr uint32_t kTokenGroupBytes = 2 * kColumnBytes;
  // What a lane's accumulators of a strip start with, and what their sum is multiplied by.
  struct alignas(16) Scale {
    int4 start;
    float scale;
  };
  using Shared = SharedLayout<Bytes>;

  // Keeps the rounded high byte within -128 .. 127.
  static constexpr float kGreatest = 32639.0f;
  static constexpr float kSmallest = 1e-34f;

  // What a lane with this column (2 * token, + 1 for the low bytes) and quad feeds to the two MMAs of
  // a tile: k = 2q, 2q+1, 2q+8, 2q+9, each as four equal bytes.
  static __device__ __forceinline__ uint4* operand(const Shared& shared, uint32_t group, uint32_t tile,
                                                   uint32_t column, uint32_t quad) {
    return reinterpret_cast<uint4*>(shared.input(group, 0) + column * kColumnBytes) + tile * kQuads + quad;
  }

  // Where lane l of a warp that brings channels 4l .. 4l+3 of a group has its part of the first group and token: half an
  // operand each of two quads.
  static __device__ __forceinline__ unsigned char* lane_operands(const Shared& shared, uint32_t lane) {
    const uint32_t k = lane % 4 * 4;
    auto* half = reinterpret_cast<uint2*>(operand(shared, 0, lane / 4, 0, k % 8 / 2)) + k / 8;
    return reinterpret_cast<unsigned char*>(half);
  }

  // Stores a transformed group of a token there, not yet times kHadamardScale, whose greatest magnitude (as f32 bits) is
  // `magnitude`.
  static __device__ __forceinline__ void store_group(unsigned char* operands, Scale* scale, const float (&v)[4],
                                                     uint32_t magnitude, uint32_t lane) {
    uint32_t high[4], low[4];
    const int32_t sum = ptx::redux_add(quantize(v, inverse_of(magnitude), high, low));
    if (lane == 0) *scale = group_scale(__uint_as_float(magnitude), sum - kLanes * 4 * kIntegerBits);
    auto* first = reinterpret_cast<uint2*>(operands);
    first[0] = make_uint2(high[0], high[1]);
    first[2] = make_uint2(high[2], high[3]);
    first += kColumnBytes / sizeof(uint2);
    first[0] = make_uint2(low[0], low[1]);
    first[2] = make_uint2(low[2], low[3]);
  }

  template <Codebook kCodebook, int kHalfBits, int kCount>
  static __device__ __forceinline__ void multiply(const LaneBlock<kHalfBits> (&blocks)[kCount], const Shared& shared,
                                                  uint32_t group, uint32_t lane, Accumulator (&acc)[kCount]) {
    static_assert(kCodebook == Codebook::kMul1, "only mul1 is a sum of bytes");
    const uint32_t row = lane / kQuads, quad = lane % kQuads;
    // What does not depend on the group stays in registers. A column without a token repeats the last one; its results
    // go nowhere.
    const uint32_t offset = group * shared.group_bytes;
    const Scale scale = *shared.after(shared.scale(0, min(quad, shared.tokens - 1)), offset);
    int32_t part[kCount][4];
#pragma unroll
    for (int s = 0; s < kCount; ++s) {
      part[s][0] = scale.start.x;
      part[s][1] = scale.start.y;
      part[s][2] = scale.start.z;
      part[s][3] = scale.start.w;
    }
    const uint4* first = operand(shared, 0, 0, min(row, 2 * shared.tokens - 1), quad);
    static_for<kBlockTiles>([&](auto tile) {
      const uint4 b = shared.after(first, offset)[tile * kQuads];
#pragma unroll
      for (int s = 0; s < kCount; ++s) {
        uint32_t x[kLaneWeights];
        blocks[s].template scrambled<kCodebook, tile>(x);
        ptx::mma_m16n8k32_u8s8(part[s], x[0], x[4], x[1], x[5], b.x, b.y);
        ptx::mma_m16n8k32_u8s8(part[s], x[2], x[6], x[3], x[7], b.z, b.w);
      }
    });
#pragma unroll
    for (int s = 0; s < kCount; ++s) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int32_t sum = part[s][2 * i] * 256 + part[s][2 * i + 1];
        acc[s].v[i] = __fmaf_rn(scale.scale, __int2float_rn(sum), acc[s].v[i]);
      }
    }
  }

 private:
  // Added to a float of at most 2^22 it leaves the nearest integer in the lowest bits, on top of kIntegerBits.
  static constexpr float kInteger = 12582912.0f;  // 1.5 * 2^23
  static constexpr uint32_t kIntegerBits = 0x4b400000;

  // What brings a group to integers, 0 for one that cannot be: of zeros, or so small that the inverse of its
  // greatest overflows, or with infinities or NaN, whose scale then makes the result NaN.
  static __device__ __forceinline__ float inverse_of(uint32_t magnitude) {
    const float greatest = __uint_as_float(magnitude);
    const bool usable = greatest > kSmallest && magnitude < 0x7f800000u;
    // A quarter, or the inverse might be denormal.
    const float inverse = __fmul_rn(kGreatest / 4, ptx::reciprocal_normal(__fmul_rn(greatest, 0.25f)));
    return usable ? inverse : 0.0f;
  }

  // Four values as integers in a high and a low byte, each four times; returns their sum, with kIntegerBits for each. A
  // product with an inverse of 0 is 0 or NaN; bytes of NaN are of no account.
  static __device__ __forceinline__ uint32_t quantize(const float (&v)[4], float inverse, uint32_t (&high)[4],
                                                      uint32_t (&low)[4]) {
    constexpr uint32_t kByte0 = 0x0000, kByte1 = 0x1111;
    uint32_t sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t x = __float_as_uint(__fmaf_rn(v[i], inverse, kInteger));
      // The low byte counts as signed, so the high one is that of the integer rounded to whole high ones.
      high[i] = ptx::prmt(x + 128, 0, kByte1);
      low[i] = ptx::prmt(x, 0, kByte0);
      sum += x;
    }
    return sum;
  }

  static __device__ __forceinline__ Scale group_scale(float greatest, int32_t sum) {
    // kMul1Offset / kMul1Slope in whole and broken part, or the product would not fit; the broken part times 2^32.
    constexpr uint32_t kWhole = kMul1Offset / kMul1Slope;
    constexpr int32_t kRest = (static_cast<int64_t>(kMul1Offset % kMul1Slope) << 32) / kMul1Slope;
    // Unsigned: of a group with NaN the sum may be anything.
    const uint32_t product = kWhole * static_cast<uint32_t>(sum) + static_cast<uint32_t>(__mulhi(sum, kRest));
    const auto start = static_cast<int32_t>(0 - product);
    return {make_int4(start >> 8, start & 255, start >> 8, start & 255),
            __fmul_rn(greatest, kHadamardScale * kMul1Slope / (kMul1Unit * kGreatest))};
  }
};

}  // namespace trellink
