// What nvcc predefines, for a C++ compiler: included before every line of the kernels.
//
// A CTA runs on one OS thread and its CUDA threads are fibers of it, so a function-local __shared__
// variable is a static thread_local one. Built-ins that synchronise are declared here and defined by
// the scheduler in sim.cpp; a thread switches away in them and nowhere else.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __CUDACC__ 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static thread_local

struct alignas(8) uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(16) int4 { int32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) ulonglong2 { uint64_t x, y; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline int4 make_int4(int32_t x, int32_t y, int32_t z, int32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace sim {

struct Dim { uint32_t x; };

// The running CUDA thread's place. Set by the scheduler before it switches to the thread.
struct Place {
  Dim thread, block, block_dim, grid_dim;
};
extern thread_local Place place;

void sync_threads();
// Gives `count` words of every lane of the warp to every lane; all 32 lanes must call it with the
// same operation. The result holds until the lane's next exchange.
enum class Op : uint32_t { kShuffle, kVote, kRedux, kMma, kSync };
using LaneWords = const uint32_t (*)[8];
LaneWords warp_exchange(Op op, const uint32_t* words, uint32_t count);
// Lets other threads run: called in every poll of memory that somebody else writes.
void poll();
// May take a while: called where other ranks may be ahead.
void hold_up();
unsigned char* dynamic_shared();
// 16-byte accesses to memory that devices share, which may go wrong where a test has asked for it.
void store_shared(uint64_t* p, uint64_t x, uint64_t y);
ulonglong2 load_shared(const uint64_t* p);
// A copy into shared memory that counts its bytes down. It may take place when it is started, or not
// before somebody asks for its counter.
struct Copy {
  unsigned char* to;
  const unsigned char* from;
  uint32_t bytes;
  uint32_t* counter;
};
void start_copy(const Copy& copy);
void finish_copies(const uint32_t* counter);
// A counter for copies that the running thread alone asks for.
uint32_t* own_counter();
// The CTA's cluster: its place, a meeting of all threads, and where another CTA has a variable in dynamic or
// static shared memory. That CTA must have begun and must not end meanwhile.
uint32_t cluster_rank();
void cluster_arrive();
void cluster_wait();
const void* shared_of_rank(const void* shared, uint32_t rank);
// The faults of the running launch, of csrc/comm/fault.cuh.
uint32_t faults();
// Ends the process with a message: the kernel did what it must never do.
[[noreturn]] void fail(const char* what);

}  // namespace sim

#define threadIdx (::sim::place.thread)
#define blockIdx (::sim::place.block)
#define blockDim (::sim::place.block_dim)
#define gridDim (::sim::place.grid_dim)

inline void __syncthreads() { sim::sync_threads(); }
inline int __syncthreads_and(int predicate) {
  __shared__ bool all;
  if (threadIdx.x == 0) all = true;
  sim::sync_threads();
  if (predicate == 0) all = false;
  sim::sync_threads();
  const bool result = all;
  // Nobody begins the next vote before everyone has this one.
  sim::sync_threads();
  return result;
}

inline uint32_t __float_as_uint(float x) { uint32_t u; std::memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(uint32_t u) { float x; std::memcpy(&x, &u, 4); return x; }
inline float __int2float_rn(int32_t x) { return static_cast<float>(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }

inline int32_t __mulhi(int32_t a, int32_t b) { return static_cast<int32_t>(static_cast<int64_t>(a) * b >> 32); }

inline uint32_t __shfl_sync(uint32_t, uint32_t x, uint32_t lane) {
  return sim::warp_exchange(sim::Op::kShuffle, &x, 1)[lane % 32][0];
}
inline float __shfl_xor_sync(uint32_t mask, float x, uint32_t lane_mask) {
  return __uint_as_float(__shfl_sync(mask, __float_as_uint(x), threadIdx.x % 32 ^ lane_mask));
}
inline uint32_t __shfl_xor_sync(uint32_t mask, uint32_t x, uint32_t lane_mask) {
  return __shfl_sync(mask, x, threadIdx.x % 32 ^ lane_mask);
}
// Lanes without such a neighbour get their own.
inline uint32_t __shfl_down_sync(uint32_t mask, uint32_t x, uint32_t delta) {
  const uint32_t lane = threadIdx.x % 32;
  return __shfl_sync(mask, x, lane + delta < 32 ? lane + delta : lane);
}
inline void __syncwarp() {
  const uint32_t nothing = 0;
  sim::warp_exchange(sim::Op::kSync, &nothing, 1);
}
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline bool __all_sync(uint32_t, bool predicate) {
  const uint32_t word = predicate;
  const auto lanes = sim::warp_exchange(sim::Op::kVote, &word, 1);
  return std::all_of(lanes, lanes + 32, [](const uint32_t (&lane)[8]) { return lane[0] != 0; });
}

template <class A, class B>
inline auto min(A a, B b) { using C = std::common_type_t<A, B>; return C(a) < C(b) ? C(a) : C(b); }
template <class A, class B>
inline auto max(A a, B b) { using C = std::common_type_t<A, B>; return C(a) < C(b) ? C(b) : C(a); }
