// The vectors of one instruction set: the word type W of csrc/format and its float sibling.
//
// tile_kernels.cpp is compiled once per instruction set and includes this file. Everything here
// has internal linkage: of equal inline functions in several variants the linker would keep
// any, and the wrong one dies of an illegal instruction.
#pragma once

#include "format/block.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace trellink {
namespace {

#if defined(__AVX512F__) && defined(__AVX512DQ__)
constexpr int kWidth = 16;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

// Vectors that a warp's 32 lanes fill.
constexpr int kSubsets = kLanes / kWidth;

typedef uint32_t U32 __attribute__((vector_size(4 * kWidth)));
typedef int32_t I32 __attribute__((vector_size(4 * kWidth)));
typedef float F32 __attribute__((vector_size(4 * kWidth)));

template <class V, class T>
TRELLINK_HD V load(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
TRELLINK_HD void store(T* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// The four floats at `from`, repeated.
TRELLINK_HD F32 broadcast4(const float* from) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  // The masked form: GCC 12 warns of an uninitialised operand inside its own header's plain one.
  return (F32)_mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(from));
#elif defined(__AVX2__) && defined(__FMA__)
  const __m128 four = _mm_loadu_ps(from);
  return (F32)_mm256_set_m128(four, four);
#else
  return load<F32>(from);
#endif
}

// a * b + c. Fused or not is a matter of the instruction set, never of the compiler's choice at a
// call site: a row's bits must not depend on which loop computed it.
TRELLINK_HD F32 multiply_add(F32 a, F32 b, F32 c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

}  // namespace
}  // namespace trellink
