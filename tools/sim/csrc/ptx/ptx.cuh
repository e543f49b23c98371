// csrc/ptx/ptx.cuh for the CPU: every instruction by its definition in the PTX ISA, none by what the
// kernels would like it to do.
#pragma once

#include <ctime>

#include "cuda_shim.h"

namespace trellink::ptx {

inline uint32_t funnel_right(uint32_t hi, uint32_t lo, uint32_t shift) {
  return static_cast<uint32_t>((static_cast<uint64_t>(hi) << 32 | lo) >> (shift & 31));
}

inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i) d |= static_cast<uint32_t>(bytes >> (8 * (selector >> 4 * i & 7)) & 0xff) << 8 * i;
  return d;
}

inline uint32_t and_xor(uint32_t x, uint32_t mask, uint32_t flip) { return (x & mask) ^ flip; }

// A shuffle, so by whole warps only.
inline uint32_t warp_index() { return __shfl_sync(0xffffffffu, threadIdx.x / 32, 0); }

inline uint32_t dp4a_u8(uint32_t a, uint32_t b, uint32_t c) {
  for (int i = 0; i < 4; ++i) c += (a >> 8 * i & 0xff) * (b >> 8 * i & 0xff);
  return c;
}

inline uint32_t sum_u8(uint32_t x, uint32_t c) {
  for (int i = 0; i < 4; ++i) c += x >> 8 * i & 0xff;
  return c;
}

inline double half_value(uint32_t bits) {
  const auto narrow = static_cast<uint16_t>(bits);
  _Float16 h;
  std::memcpy(&h, &narrow, 2);
  return static_cast<double>(h);
}

// Rounds once, to nearest even.
inline uint32_t half_bits(double x) {
  const auto h = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}

// A sum of two fp16 values is exact in a double, and so is a product plus an fp16 value.
inline uint32_t sum_of_halves(uint32_t x) {
  return half_bits(half_value(x) + half_value(x >> 16)) * 0x10001u;
}

inline uint32_t hfma2(uint32_t a, uint32_t b, uint32_t c) {
  return half_bits(half_value(a) * half_value(b) + half_value(c)) |
         half_bits(half_value(a >> 16) * half_value(b >> 16) + half_value(c >> 16)) << 16;
}

inline float greater_magnitude(float x, float y) {
  if (x != x || y != y) return __builtin_nanf("");
  return std::max(std::fabs(x), std::fabs(y));
}

inline uint32_t pack_f16x2(float lo, float hi) { return half_bits(lo) | half_bits(hi) << 16; }

inline uint32_t bf16_bits(float x) {
  const uint32_t u = __float_as_uint(x);
  if (std::isnan(x)) return 0x7fff;
  return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

inline uint32_t pack_bf16x2(float lo, float hi) { return bf16_bits(lo) | bf16_bits(hi) << 16; }

inline float f16_to_f32(uint32_t bits) { return static_cast<float>(half_value(bits)); }

inline float reciprocal(float x) { return 1.0f / x; }

inline float reciprocal_normal(float x) { return 1.0f / x; }

inline float exp2(float x) { return std::exp2(x); }

inline uint32_t grid_ctas() { return gridDim.x; }

inline uint32_t opaque(uint32_t x) { return x; }

inline uint64_t opaque(uint64_t x) { return x; }

template <class T>
class SharedPointer {
 public:
  SharedPointer() = default;
  explicit SharedPointer(T* p) : p_(p) {}
  T* get() const { return p_; }

 private:
  T* p_;
};

template <class T>
T* opaque_shared(T* p) {
  return p;
}

template <class T>
T ld_shared_in_order(const T* p) {
  return *p;
}

inline uint32_t redux_max(uint32_t x) {
  const auto lanes = sim::warp_exchange(sim::Op::kRedux, &x, 1);
  for (int i = 0; i < 32; ++i) x = std::max(x, lanes[i][0]);
  return x;
}

inline int32_t redux_add(int32_t x) {
  const auto word = static_cast<uint32_t>(x);
  const auto lanes = sim::warp_exchange(sim::Op::kRedux, &word, 1);
  uint32_t sum = 0;
  for (int i = 0; i < 32; ++i) sum += lanes[i][0];
  return static_cast<int32_t>(sum);
}

inline double bf16_value(uint32_t bits) { return static_cast<double>(__uint_as_float(bits << 16)); }

// Fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
template <double (*kValue)(uint32_t)>
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&words)[6]) {
  const auto lanes = sim::warp_exchange(sim::Op::kMma, words, 6);
  const uint32_t lane = threadIdx.x % 32;
  const auto a_at = [&](uint32_t row, uint32_t k) {
    const uint32_t reg = (row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0);
    return kValue(lanes[row % 8 * 4 + k % 8 / 2][reg] >> (k % 2 * 16) & 0xffffu);
  };
  const auto b_at = [&](uint32_t k, uint32_t column) {
    return kValue(lanes[column * 4 + k % 8 / 2][4 + k / 8] >> (k % 2 * 16) & 0xffffu);
  };
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = d[i];
    for (uint32_t k = 0; k < 16; ++k) sum += a_at(row, k) * b_at(k, column);
    d[i] = static_cast<float>(sum);
  }
}

inline void mma_m16n8k16_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                             uint32_t b1) {
  mma_m16n8k16<half_value>(d, {a0, a1, a2, a3, b0, b1});
}

inline void mma_m16n8k16_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                              uint32_t b1) {
  mma_m16n8k16<bf16_value>(d, {a0, a1, a2, a3, b0, b1});
}

// Fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k32" with 8-bit integers.
inline void mma_m16n8k32_u8s8(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                              uint32_t b1) {
  const uint32_t words[6] = {a0, a1, a2, a3, b0, b1};
  const auto lanes = sim::warp_exchange(sim::Op::kMma, words, 6);
  const uint32_t lane = threadIdx.x % 32;
  const auto a_at = [&](uint32_t row, uint32_t k) -> int32_t {
    const uint32_t reg = (row >= 8 ? 1 : 0) + (k >= 16 ? 2 : 0);
    return static_cast<uint8_t>(lanes[row % 8 * 4 + k % 16 / 4][reg] >> (k % 4 * 8));
  };
  const auto b_at = [&](uint32_t k, uint32_t column) -> int32_t {
    return static_cast<int8_t>(lanes[column * 4 + k % 16 / 4][4 + k / 16] >> (k % 4 * 8));
  };
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    // The instruction wraps; the kernels must not make it.
    int64_t sum = d[i];
    for (uint32_t k = 0; k < 32; ++k) sum += a_at(row, k) * b_at(k, column);
    if (sum != static_cast<int32_t>(sum)) sim::fail("an integer MMA overflowed");
    d[i] = static_cast<int32_t>(sum);
  }
}

// What needs a warpgroup is done by each warp for its 16 rows. An MMA ends when it is started, so that what
// wgmma_wait and the fences are for goes unseen.
#define TRELLINK_WGMMA (__CUDA_ARCH__ == 900)

inline uint64_t matrix_descriptor(const void* shared, uint32_t k_bytes, uint32_t n_bytes) {
  const auto address = reinterpret_cast<uintptr_t>(shared);
  if (address % 16 != 0 || k_bytes != 128 || n_bytes != 256) sim::fail("a matrix that is not laid out as expected");
  return address / 16;
}
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int kGroups>
void wgmma_wait() {}
template <int kBlocks>
void wgmma_results(float (&)[kBlocks][4]) {}

template <int kBlocks>
void wgmma_f16(float (&d)[kBlocks][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  const auto* columns = reinterpret_cast<const unsigned char*>(b * 16);
  for (int n = 0; n < kBlocks; ++n) {
    if (!add) std::fill(d[n], d[n] + 4, 0.0f);
    const uint32_t lane = threadIdx.x % 32;
    uint32_t words[2];
    for (uint32_t half = 0; half < 2; ++half) {
      std::memcpy(&words[half], columns + n * 256 + half * 128 + lane / 4 * 16 + lane % 4 * 4, 4);
    }
    mma_m16n8k16_f16(d[n], a[0], a[1], a[2], a[3], words[0], words[1]);
  }
}

inline void trap() { sim::fail("a kernel that this architecture has not"); }

// A vector access must be aligned to its width.
template <class T>
inline T* aligned(T* p, uintptr_t width) {
  if (reinterpret_cast<uintptr_t>(p) % width != 0) sim::fail("a vector access that is not aligned");
  return p;
}

// A barrier's word: the bytes still to come, who has arrived, who is to, the phase.
struct Mbarrier {
  uint32_t bytes;
  uint8_t arrived, arrivals;
  uint16_t phase;

  void arrive() {
    if (arrived == arrivals) sim::fail("a barrier on which too many threads arrive in a phase");
    ++arrived;
  }
  void complete_if_due() {
    if (arrived == arrivals && bytes == 0) {
      arrived = 0;
      phase ^= 1;
    }
  }
};
inline Mbarrier& mbarrier(uint64_t* barrier) { return *reinterpret_cast<Mbarrier*>(barrier); }

inline void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  mbarrier(barrier) = {0, 0, static_cast<uint8_t>(arrivals), 0};
}
inline void mbarrier_invalidate(uint64_t* barrier) {
  mbarrier(barrier).complete_if_due();
  if (mbarrier(barrier).arrived || mbarrier(barrier).bytes) sim::fail("a barrier that ends within a phase");
}
inline void fence_mbarrier_init() {}
inline void fence_async_copies() {}

inline void mbarrier_expect(uint64_t* barrier, uint32_t bytes) {
  mbarrier(barrier).arrive();
  mbarrier(barrier).bytes += bytes;
}
inline void mbarrier_arrive(uint64_t* barrier) {
  mbarrier(barrier).arrive();
  mbarrier(barrier).complete_if_due();
}

inline bool elect_one() {
  __syncwarp();
  return threadIdx.x % 32 == 0;
}

// A copy takes place at once, or not before it is waited for.
inline void copy_bulk(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  if (bytes % 16 != 0) sim::fail("a bulk copy of other than multiples of 16 bytes");
  const sim::Copy copy{aligned(static_cast<unsigned char*>(shared), 16), aligned(static_cast<const unsigned char*>(global), 16),
                       bytes, &mbarrier(barrier).bytes};
  sim::start_copy(copy);
}

inline void copy_bulk_once(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  copy_bulk(shared, global, bytes, barrier);
}

inline bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  sim::finish_copies(&mbarrier(barrier).bytes);
  mbarrier(barrier).complete_if_due();
  if (mbarrier(barrier).phase != parity) return true;
  sim::poll();
  return false;
}

inline void cp_async_16(void* shared, const void* global) {
  uint32_t* counter = sim::own_counter();
  *counter += 16;
  sim::start_copy({aligned(static_cast<unsigned char*>(shared), 16), aligned(static_cast<const unsigned char*>(global), 16),
                   16, counter});
}
inline void cp_async_wait_all() { sim::finish_copies(sim::own_counter()); }

inline void prefetch_l2(const void*) {}

inline void st_relaxed_sys_b128(uint64_t* p, uint64_t low, uint64_t high) {
  sim::store_shared(aligned(p, 16), low, high);
}

inline ulonglong2 ld_relaxed_sys_b128(const uint64_t* p) {
  sim::poll();
  return sim::load_shared(aligned(p, 16));
}

inline uint32_t ld_relaxed_gpu(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline uint64_t ld_relaxed_sys_u64(const uint64_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline void st_relaxed_gpu(uint32_t* p, uint32_t x) { __atomic_store_n(p, x, __ATOMIC_RELAXED); }
inline uint32_t ld_relaxed_sys(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline void st_relaxed_sys(uint32_t* p, uint32_t x) { __atomic_store_n(p, x, __ATOMIC_RELAXED); }

inline uint32_t atom_cas_relaxed_gpu(uint32_t* p, uint32_t expected, uint32_t x) {
  __atomic_compare_exchange_n(p, &expected, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// A launch begins when the one before it has ended.
inline void grid_dependency_wait() {}
inline void launch_dependents() {
  if (threadIdx.x == 0) sim::hold_up();
}

inline uint32_t cluster_rank() { return sim::cluster_rank(); }
inline void cluster_arrive() { sim::cluster_arrive(); }
inline void cluster_wait() { sim::cluster_wait(); }
inline void cluster_arrive_shared() { cluster_arrive(); }
inline void cluster_wait_shared() { cluster_wait(); }
template <class T>
const T* shared_of_rank(const T* shared, uint32_t rank) {
  return static_cast<const T*>(sim::shared_of_rank(shared, rank));
}

inline void fence_sys() { std::atomic_thread_fence(std::memory_order_acq_rel); }

inline unsigned char* dynamic_shared() { return sim::dynamic_shared(); }

// Who looks at the clock waits for something: the other threads run meanwhile, and their waits with it.
inline uint64_t globaltimer_ns() {
  sim::poll();
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace trellink::ptx
