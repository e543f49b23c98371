// Memory read once and nothing else: the floor under what a layer can take, since a layer reads at
// least its packed weights.
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

// Loads of a thread that are on their way at once. With all threads of an SM that is more than latency
// times bandwidth of any memory so far, and it fits the registers of three CTAs.
constexpr int kLoadsInFlight = 4;

__device__ __forceinline__ uint32_t fold(uint4 chunk) { return chunk.x ^ chunk.y ^ chunk.z ^ chunk.w; }

// The XOR of the words that this thread reads: every `threads`-th chunk.
__device__ __forceinline__ uint32_t read_share(const TrellinkStream& params, uint64_t thread, uint64_t threads) {
  const auto* source = reinterpret_cast<const uint32_t*>(params.source);
  uint32_t sum = 0;
  for (uint64_t first = thread; first < params.chunks; first += kLoadsInFlight * threads) {
    uint4 chunk[kLoadsInFlight];
#pragma unroll
    for (int i = 0; i < kLoadsInFlight; ++i) {
      const uint64_t at = first + i * threads;
      chunk[i] = at < params.chunks ? ptx::ld_stream_v4(source + 4 * at) : uint4{};
    }
    // Only now: a sum after each load would wait for it before the next is issued.
#pragma unroll
    for (int i = 0; i < kLoadsInFlight; ++i) sum ^= fold(chunk[i]);
  }
  return sum;
}

}  // namespace trellink

// Any grid; three CTAs on each SM keep the memory busy.
extern "C" __global__ void __launch_bounds__(TRELLINK_STREAM_THREADS, TRELLINK_STREAM_CTAS_PER_SM)
    trellink_stream(const __grid_constant__ TrellinkStream params) {
  const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const uint32_t sum = trellink::read_share(params, thread, threads);
  // Whether this holds depends on what was read, so every load is waited for, also with a mask of 0.
  if ((sum & params.mask) != 0) atomicXor(reinterpret_cast<uint32_t*>(params.sum), sum);
}
