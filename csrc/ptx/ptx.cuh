// PTX instructions, one named inline function each: the only inline assembly of the crate.
#pragma once

#include <cstdint>

namespace trellink::ptx {

// ---- integer and packed-half arithmetic ----

__device__ __forceinline__ uint32_t funnel_right(uint32_t hi, uint32_t lo, uint32_t shift) {
  uint32_t d;
  asm("shf.r.wrap.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(lo), "r"(hi), "r"(shift));
  return d;
}

__device__ __forceinline__ uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}

// c + the dot product of the four bytes of a and b.
__device__ __forceinline__ uint32_t dp4a_u8(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// c + the sum of the four bytes of x. On the pipe of logic, where dp4a_u8 takes that of multiplications; sm_120 has
// no such instruction.
__device__ __forceinline__ uint32_t sum_u8(uint32_t x, uint32_t c) {
#if __CUDA_ARCH__ >= 1200
  return dp4a_u8(x, 0x01010101u, c);
#else
  uint32_t d;
  asm("vabsdiff4.u32.u32.u32.add %0, %1, %2, %3;" : "=r"(d) : "r"(x), "r"(0), "r"(c));
  return d;
#endif
}

// (x & mask) ^ flip. One instruction even where both constants are known, of which an immediate
// operand could hold but one.
__device__ __forceinline__ uint32_t and_xor(uint32_t x, uint32_t mask, uint32_t flip) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(x), "r"(mask), "r"(flip));
  return d;
}

// The sum of the two halves of x, in both halves.
__device__ __forceinline__ uint32_t sum_of_halves(uint32_t x) {
  uint32_t d;
  asm("{\n"
      ".reg .b16 lo, hi;\n"
      ".reg .b32 los, his;\n"
      "mov.b32 {lo, hi}, %1;\n"
      "mov.b32 los, {lo, lo};\n"
      "mov.b32 his, {hi, hi};\n"
      "add.rn.f16x2 %0, los, his;\n"
      "}"
      : "=r"(d)
      : "r"(x));
  return d;
}

__device__ __forceinline__ uint32_t hfma2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// Two floats rounded to fp16, `lo` in the low half.
__device__ __forceinline__ uint32_t pack_f16x2(float lo, float hi) {
  uint32_t d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
  return d;
}

// Two floats rounded to bf16, `lo` in the low half.
__device__ __forceinline__ uint32_t pack_bf16x2(float lo, float hi) {
  uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
  return d;
}

__device__ __forceinline__ float f16_to_f32(uint32_t half_bits) {
  float d;
  asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h; }" : "=f"(d) : "r"(half_bits));
  return d;
}

// The greater of the magnitudes of two floats; NaN if one is.
__device__ __forceinline__ float greater_magnitude(float x, float y) {
  float d;
  asm("{ .reg .f32 a, b; abs.f32 a, %1; abs.f32 b, %2; max.NaN.f32 %0, a, b; }" : "=f"(d) : "f"(x), "f"(y));
  return d;
}

// 1 / x to within a unit in the last place.
__device__ __forceinline__ float reciprocal(float x) {
  float d;
  asm("rcp.approx.f32 %0, %1;" : "=f"(d) : "f"(x));
  return d;
}

// The same of x whose inverse is a normal number.
__device__ __forceinline__ float reciprocal_normal(float x) {
  float d;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
  return d;
}

// 2^x to within two units in the last place.
__device__ __forceinline__ float exp2(float x) {
  float d;
  asm("ex2.approx.f32 %0, %1;" : "=f"(d) : "f"(x));
  return d;
}

// ---- warp ----

// The greatest of x over the warp.
__device__ __forceinline__ uint32_t redux_max(uint32_t x) {
  uint32_t d;
  asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(d) : "r"(x));
  return d;
}

// The sum of x over the warp.
__device__ __forceinline__ int32_t redux_add(int32_t x) {
  int32_t d;
  asm volatile("redux.sync.add.s32 %0, %1, 0xffffffff;" : "=r"(d) : "r"(x));
  return d;
}

// x, but the compiler does not know that: what is computed from it stays where it is written. A loop
// around a switch would otherwise keep the addresses of all cases in registers.
__device__ __forceinline__ uint32_t opaque(uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}

__device__ __forceinline__ uint64_t opaque(uint64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}

// The CTA's warp that this thread belongs to, in a way that tells the compiler that it is the same for
// all lanes: branches on it then need no reconvergence around warp operations.
__device__ __forceinline__ uint32_t warp_index() {
#if __CUDA_ARCH__ == 900
  return __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
#else
  // Opaque, or the quotient is kept in a register through the main loop, for which kernels of 32 tokens have none.
  return __shfl_sync(0xffffffffu, opaque(threadIdx.x) / 32, 0);
#endif
}

// A pointer to shared memory as what it takes there itself: half of what others take. The compiler does not know where it
// points: it keeps the address in a register, and does not find it out anew from the CTA's rank in its cluster.
template <class T>
class SharedPointer {
 public:
  SharedPointer() = default;
  __device__ explicit SharedPointer(T* p) : address_(static_cast<uint32_t>(__cvta_generic_to_shared(p))) {}
  // Opaque, or nvcc 13.0 does not come to an end.
  __device__ T* get() const { return static_cast<T*>(__cvta_shared_to_generic(opaque(address_))); }

 private:
  uint32_t address_;
};

// p, but the compiler does not know where in shared memory that is.
template <class T>
__device__ __forceinline__ T* opaque_shared(T* p) {
  return SharedPointer<T>(p).get();
}

// 4 or 16 bytes of shared memory, read where it is written. A warp's reads of shared memory return in their order: what is
// computed from this one waits for all before it.
template <class T>
__device__ __forceinline__ T ld_shared_in_order(const T* p) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 16, "one access");
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(p));
  uint4 d;
  if constexpr (sizeof(T) == 4) {
    asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(d.x) : "r"(address) : "memory");
  } else {
    asm volatile("ld.volatile.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
                 : "r"(address)
                 : "memory");
  }
  return *reinterpret_cast<const T*>(&d);
}

// CTAs of the launch, found out here: gridDim is found out where a kernel begins, and then takes a register
// through all of it.
__device__ __forceinline__ uint32_t grid_ctas() {
  uint32_t d;
  asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(d));
  return d;
}

// ---- tensor cores ----

// d += a (16x16, row-major) * b (16x8, column-major); a, b fp16, d fp32.
__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                 uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same with a, b bf16.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                  uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// d += a (16x32, row-major, unsigned bytes) * b (32x8, column-major, signed bytes); exact.
__device__ __forceinline__ void mma_m16n8k32_u8s8(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                  uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// ---- tensor cores, by warpgroups: sm_90a alone ----

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TRELLINK_WGMMA 1

// Where the tensor core finds a matrix in shared memory that consists of core matrices, 8 rows of 16 bytes:
// the next one along K lies `k_bytes` further, the next one across `n_bytes`.
__device__ __forceinline__ uint64_t matrix_descriptor(const void* shared, uint32_t k_bytes, uint32_t n_bytes) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | static_cast<uint64_t>(k_bytes >> 4) << 16 |
         static_cast<uint64_t>(n_bytes >> 4) << 32;
}

// Orders what this warp has written to registers before MMAs that are started later.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// What has been started since the last one becomes a group.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until all groups but the last kGroups have ended.
template <int kGroups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

// Keeps the compiler from moving what reads results, or makes operands, across: it does not know that an MMA that
// has been started still works on registers.
template <int kBlocks>
__device__ __forceinline__ void wgmma_results(float (&d)[kBlocks][4]) {
#pragma unroll
  for (int i = 0; i < kBlocks * 4; ++i) asm volatile("" : "+f"(d[i / 4][i % 4])::"memory");
}

// Starts d = a (64x16, of which each warp has 16 rows) * b (16 x tokens, a descriptor) + d if `add`; a, b fp16,
// d fp32. For 16 tokens.
__device__ __forceinline__ void wgmma_f16(float (&d)[2][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %13, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7"
      "}, {%8,%9,%10,%11}, %12, p, 1, 1, 0; }"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),
        "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<uint32_t>(add)));
}

// The same for 32 tokens.
__device__ __forceinline__ void wgmma_f16(float (&d)[4][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
      "}, {%16,%17,%18,%19}, %20, p, 1, 1, 0; }"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),
        "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),
        "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<uint32_t>(add)));
}

// The same for 64 tokens.
__device__ __forceinline__ void wgmma_f16(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
      "}, {%32,%33,%34,%35}, %36, p, 1, 1, 0; }"
      : "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]),
        "+f"(d[1][0]), "+f"(d[1][1]), "+f"(d[1][2]), "+f"(d[1][3]),
        "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]),
        "+f"(d[4][0]), "+f"(d[4][1]), "+f"(d[4][2]), "+f"(d[4][3]),
        "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]),
        "+f"(d[7][0]), "+f"(d[7][1]), "+f"(d[7][2]), "+f"(d[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<uint32_t>(add)));
}

#else
#define TRELLINK_WGMMA 0
#endif

// ---- memory ----

// For what is read once: past L1.
__device__ __forceinline__ uint4 ld_stream_v4(const uint32_t* p) {
  uint4 d;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
               : "l"(p));
  return d;
}

// 16 bytes from global to shared memory, behind the thread's back and past L1.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

// Waits until the thread's copies are complete.
__device__ __forceinline__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#if __CUDA_ARCH__ >= 900

// A barrier in shared memory whose phases are complete when `arrivals` threads have arrived and copies have ended.
__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals) : "memory");
}

// Ends a barrier, whose place may then hold another.
__device__ __forceinline__ void mbarrier_invalidate(uint64_t* barrier) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(address) : "memory");
}

// Makes the barriers that this thread has initialised known to copies.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Orders this thread's accesses to shared memory before copies into it that are started later.
__device__ __forceinline__ void fence_async_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Arrives; what this thread has done before is seen by those who have waited for the phase.
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
}

// Arrives, and lets the barrier's phase last until `bytes` have been copied.
__device__ __forceinline__ void mbarrier_expect(uint64_t* barrier, uint32_t bytes) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
}

// Whether the phase of this parity is complete; may wait a while for it.
__device__ __forceinline__ bool mbarrier_try_wait(uint64_t* barrier, uint32_t parity) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  uint32_t done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(address), "r"(parity)
               : "memory");
  return done;
}

// True in one lane of a converged warp. The compiler knows that it is one; else it has the instructions of the copy engine,
// which are a warp's, find it out in a loop.
__device__ __forceinline__ bool elect_one() {
  uint32_t elected;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p; }" : "=r"(elected));
  return elected != 0;
}

// `bytes` from global to shared memory by the copy engine: multiples of 16 at multiples of 16.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(global), "r"(bytes), "r"(address)
               : "memory");
}

// The same of what is read once: it leaves L2 before all else, so that what is read again stays.
__device__ __forceinline__ void copy_bulk_once(void* shared, const void* global, uint32_t bytes, uint64_t* barrier) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  // What createpolicy.fractional.L2::evict_first makes of 1.0; ptxas would find it out anew each time.
  constexpr uint64_t kEvictFirst = 0x12f0000000000000u;
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(global), "r"(bytes), "r"(address), "l"(kEvictFirst)
      : "memory");
}

#endif

// Asks for the 128-byte line of an address; nothing depends on it.
__device__ __forceinline__ void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// 128 bits as one access, single-copy atomic where that of 64 bits is. A vector of two would not be: PTX takes that for
// two accesses in any order.
__device__ __forceinline__ void st_relaxed_sys_b128(uint64_t* p, uint64_t low, uint64_t high) {
  asm volatile("{ .reg .b128 v; mov.b128 v, {%1,%2}; st.relaxed.sys.global.b128 [%0], v; }" ::"l"(p), "l"(low), "l"(high)
               : "memory");
}

__device__ __forceinline__ ulonglong2 ld_relaxed_sys_b128(const uint64_t* p) {
  ulonglong2 d;
  asm volatile("{ .reg .b128 v; ld.relaxed.sys.global.b128 v, [%2]; mov.b128 {%0,%1}, v; }"
               : "=l"(d.x), "=l"(d.y)
               : "l"(p)
               : "memory");
  return d;
}

__device__ __forceinline__ void st_relaxed_gpu(uint32_t* p, uint32_t x) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

__device__ __forceinline__ uint32_t ld_relaxed_gpu(const uint32_t* p) {
  uint32_t d;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(d) : "l"(p) : "memory");
  return d;
}

__device__ __forceinline__ uint64_t ld_relaxed_sys_u64(const uint64_t* p) {
  uint64_t d;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(d) : "l"(p) : "memory");
  return d;
}

__device__ __forceinline__ uint32_t ld_relaxed_sys(const uint32_t* p) {
  uint32_t d;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(d) : "l"(p) : "memory");
  return d;
}

__device__ __forceinline__ void st_relaxed_sys(uint32_t* p, uint32_t x) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

__device__ __forceinline__ uint32_t atom_cas_relaxed_gpu(uint32_t* p, uint32_t expected, uint32_t x) {
  uint32_t d;
  asm volatile("atom.cas.relaxed.gpu.global.b32 %0, [%1], %2, %3;"
               : "=r"(d)
               : "l"(p), "r"(expected), "r"(x)
               : "memory");
  return d;
}

__device__ __forceinline__ void fence_sys() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

// The launch's dynamic shared memory. It begins at a multiple of 128 bytes: 64 bytes off, calls of 8 to 64 tokens take
// 0.1 to 1.3 µs longer (docs/performance.md).
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];
  return dynamic_shared_bytes;
}

// ---- launch and cluster: from sm_90 on; before, a launch depends on all of the one before it, and every
// ---- CTA is a cluster by itself

// Waits until the launches that this one depends on have ended and their writes can be seen.
__device__ __forceinline__ void grid_dependency_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next launch begin, as far as it does not wait as above.
__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// This CTA's place in its cluster.
__device__ __forceinline__ uint32_t cluster_rank() {
#if __CUDA_ARCH__ >= 900
  uint32_t d;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(d));
  return d;
#else
  return 0;
#endif
}

// Tells all threads of the cluster, in their next cluster_wait, that this one has come here. It orders no writes;
// what this thread has used, it has read.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}

// Waits for all threads of the cluster.
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The same two for shared memory, too: what was written there before is seen after. Older compilers know no fence for that
// alone, and one for all memory takes 1,000 cycles.
__device__ __forceinline__ void cluster_arrive_shared() {
#if __CUDA_ARCH__ >= 900
#if __CUDACC_VER_MAJOR__ >= 13
  asm volatile("fence.release.sync_restrict::shared::cta.cluster;" ::: "memory");
  cluster_arrive();
#else
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
#endif
}
__device__ __forceinline__ void cluster_wait_shared() {
  cluster_wait();
#if __CUDA_ARCH__ >= 900 && __CUDACC_VER_MAJOR__ >= 13
  asm volatile("fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
#endif
}

// Where CTA `rank` of the cluster has what this CTA has at `shared`.
template <class T>
__device__ __forceinline__ const T* shared_of_rank(const T* shared, uint32_t rank) {
#if __CUDA_ARCH__ >= 900
  const T* d;
  asm("mapa.u64 %0, %1, %2;" : "=l"(d) : "l"(shared), "r"(rank));
  return d;
#else
  return shared;
#endif
}

// Ends the launch with an error.
__device__ __forceinline__ void trap() { asm volatile("trap;"); }

// ---- time ----

__device__ __forceinline__ uint64_t globaltimer_ns() {
  uint64_t d;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(d));
  return d;
}

}  // namespace trellink::ptx
