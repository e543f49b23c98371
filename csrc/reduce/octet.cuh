// Eight neighbouring elements of a tensor: 4 words of two f16 or bf16, or 8 words of an f32.
#pragma once

#include "comm/octet_layout.h"
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

// Words of an octet whose elements take two and four bytes.
constexpr uint32_t kHalfWords = kOctet / 2, kFloatWords = kOctet;

template <uint32_t kWords>
__device__ __forceinline__ void load_octet(uint64_t tensor, uint64_t octet, uint32_t (&words)[kWords]) {
  const auto* from = reinterpret_cast<const uint4*>(tensor) + octet * (kWords / 4);
#pragma unroll
  for (uint32_t i = 0; i < kWords / 4; ++i) {
    const uint4 piece = from[i];
    words[4 * i] = piece.x;
    words[4 * i + 1] = piece.y;
    words[4 * i + 2] = piece.z;
    words[4 * i + 3] = piece.w;
  }
}

template <uint32_t kWords>
__device__ __forceinline__ void store_octet(uint64_t tensor, uint64_t octet, const uint32_t (&words)[kWords]) {
  auto* to = reinterpret_cast<uint4*>(tensor) + octet * (kWords / 4);
#pragma unroll
  for (uint32_t i = 0; i < kWords / 4; ++i) {
    to[i] = uint4{words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
  }
}

// Elements as f32, exactly. `dtype` chooses between the two of two bytes.
template <uint32_t kWords>
__device__ __forceinline__ void unpack_octet(const uint32_t (&words)[kWords], uint32_t dtype, float (&v)[kOctet]) {
#pragma unroll
  for (uint32_t i = 0; i < kOctet; ++i) {
    if constexpr (kWords == kFloatWords) {
      v[i] = __uint_as_float(words[i]);
    } else {
      const uint32_t half = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffffu;
      v[i] = dtype == TRELLINK_DTYPE_F16 ? ptx::f16_to_f32(half) : __uint_as_float(half << 16);
    }
  }
}

// The values rounded to elements.
template <uint32_t kWords>
__device__ __forceinline__ void pack_octet(const float (&v)[kOctet], uint32_t dtype, uint32_t (&words)[kWords]) {
#pragma unroll
  for (uint32_t i = 0; i < kWords; ++i) {
    if constexpr (kWords == kFloatWords) {
      words[i] = __float_as_uint(v[i]);
    } else {
      words[i] = dtype == TRELLINK_DTYPE_F16 ? ptx::pack_f16x2(v[2 * i], v[2 * i + 1])
                                             : ptx::pack_bf16x2(v[2 * i], v[2 * i + 1]);
    }
  }
}

// Adds the elements of one rank to the sums of those before it. The first rank's are taken as they are:
// 0 + -0 would lose a sign.
template <uint32_t kWords>
__device__ __forceinline__ void add_rank(bool first, const uint32_t (&words)[kWords], uint32_t dtype,
                                         float (&sum)[kOctet]) {
  float v[kOctet];
  unpack_octet(words, dtype, v);
#pragma unroll
  for (uint32_t i = 0; i < kOctet; ++i) sum[i] = first ? v[i] : __fadd_rn(sum[i], v[i]);
}

template <uint32_t kWords>
__device__ __forceinline__ void finish_octet_as(const TrellinkAllReduce& params, uint32_t octet, float (&v)[kOctet]) {
  uint32_t words[kWords];
  if (params.epilogue == TRELLINK_EPILOGUE_ADD) {
    load_octet(params.out, octet, words);
    float residual[kOctet];
    unpack_octet(words, params.out_dtype, residual);
#pragma unroll
    for (uint32_t i = 0; i < kOctet; ++i) v[i] = __fadd_rn(v[i], residual[i]);
  }
  pack_octet(v, params.out_dtype, words);
  store_octet(params.out, octet, words);
}

// Applies the epilogue to the sums of an octet, rounds once and stores.
__device__ __forceinline__ void finish_octet(const TrellinkAllReduce& params, uint32_t octet, float (&v)[kOctet]) {
  if (params.out_dtype == TRELLINK_DTYPE_F32) {
    finish_octet_as<kFloatWords>(params, octet, v);
  } else {
    finish_octet_as<kHalfWords>(params, octet, v);
  }
}

}  // namespace trellink
