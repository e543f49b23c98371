// The 32-bit word that the format's arithmetic is written in.
//
// Decoding is pure integer arithmetic on u32 words, the same for every lane of a warp. On a GPU a
// word is one lane's uint32_t; on the host it is a SIMD vector with one element per lane. Every
// function of csrc/format is a template over the word, so both run the same lines.
#pragma once

#include <cstdint>
#include <utility>

#if defined(__CUDACC__)
#define TRELLINK_HD __host__ __device__ __forceinline__
#define TRELLINK_LAMBDA
#else
#define TRELLINK_HD inline __attribute__((always_inline))
#define TRELLINK_LAMBDA __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#include "ptx/ptx.cuh"
#endif

namespace trellink {

// An int that is part of its type (std::integral_constant converts on the host only).
template <int kValue>
struct Index {
  TRELLINK_HD constexpr operator int() const { return kValue; }
};

// Calls f(Index<0>) ... f(Index<kCount - 1>): a loop whose index is a constant expression, because
// shift amounts and register indices have to be.
template <class F, int... kIndex>
TRELLINK_HD void static_for_indices(F&& f, std::integer_sequence<int, kIndex...>) {
  (f(Index<kIndex>{}), ...);
}

template <int kCount, class F>
TRELLINK_HD void static_for(F&& f) {
  static_for_indices(static_cast<F&&>(f), std::make_integer_sequence<int, kCount>{});
}

// The low 32 bits of (hi:lo) >> kShift, 0 < kShift < 32.
template <int kShift, class W>
TRELLINK_HD W funnel_right(W hi, W lo) {
  static_assert(kShift > 0 && kShift < 32, "a funnel shift by 0 or 32 is a move");
#if defined(__CUDA_ARCH__)
  return ptx::funnel_right(hi, lo, kShift);
#else
  return (lo >> kShift) | (hi << (32 - kShift));
#endif
}

// Bits [kShift, kShift + 16) of x, right-aligned.
template <int kShift, class W>
TRELLINK_HD W half_at(W x) {
  static_assert(kShift >= 0 && kShift <= 16, "the half must lie inside the word");
  if constexpr (kShift == 16) {
    return x >> 16;
  } else {
    return (x >> kShift) & 0xffffu;
  }
}

// Bits [kShiftA, kShiftA + 16) of a above bits [kShiftB, kShiftB + 16) of b.
template <int kShiftA, int kShiftB, class W>
TRELLINK_HD W join_halves(W a, W b) {
#if defined(__CUDA_ARCH__)
  if constexpr (kShiftA % 8 == 0 && kShiftB % 8 == 0) {
    constexpr uint32_t kA = kShiftA / 8, kB = 4 + kShiftB / 8;
    return ptx::prmt(a, b, (kA + 1) << 12 | kA << 8 | (kB + 1) << 4 | kB);
  }
#endif
  return (a >> kShiftA) << 16 | half_at<kShiftB>(b);
}

// A state as codebooks take it. On a GPU it stands in both halves of a word: so one PRMT takes its two bytes from
// any two words, with no zero among them. The multiplication that follows takes it once, by kHalvesOnce.
#if defined(__CUDA_ARCH__)
constexpr uint32_t kHalvesOnce = 0xffff0001u;
static_assert(0x10001u * kHalvesOnce == 1, "modulo 2^32");
#else
constexpr uint32_t kHalvesOnce = 1;
#endif

// Bits [kShift, kShift + 16) of x as a state.
template <int kShift, class W>
TRELLINK_HD W state_at(W x) {
  static_assert(kShift >= 0 && kShift <= 16, "the window must lie inside the word");
#if defined(__CUDA_ARCH__)
  // A window that is not whole bytes is brought to them by a shift to the left, which the multiplier can do and
  // neighbouring windows share.
  constexpr int kAlign = (8 - kShift % 8) % 8;
  constexpr uint32_t kFirst = (kShift + kAlign) / 8;
  return ptx::prmt(x << kAlign, 0u, 0x1010u + kFirst * 0x1111u);
#else
  return half_at<kShift>(x);
#endif
}

// The low byte of hi above the high byte of lo as a state.
template <class W>
TRELLINK_HD W state_across(W hi, W lo) {
#if defined(__CUDA_ARCH__)
  return ptx::prmt(lo, hi, 0x4343u);
#else
  return (hi & 0xffu) << 8 | lo >> 24;
#endif
}

}  // namespace trellink
