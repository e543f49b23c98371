// The one-shot form: every rank sends all its elements to every other, as packets. The shortest wait,
// for (world - 1) times twice the bytes.
//
// A packet carries two words of the tensor as they are, each two elements of two bytes or one of four: that is
// exact, whatever the sum is rounded to. A thread keeps its octets to itself from the load to the store,
// so no thread waits for another of its rank, and output and input may be the same memory.
//
// The exchange is all-to-all, as exchange.cuh wants it: a launch has at least one octet, of which every
// rank sends packets to every other, and none ends before it has them of all.
#pragma once

#include "comm/exchange.cuh"
#include "reduce/octet.cuh"

namespace trellink {

template <uint32_t kWords>
__device__ __forceinline__ void push_octet(const Exchange& exchange, uint32_t octet, const uint32_t (&words)[kWords]) {
  const uint64_t index = OctetLayout{kWords / 2}.index(octet);
#pragma unroll
  for (uint32_t i = 0; i < kWords; i += 2) {
    exchange.push_to_peers(index + i / 2 * OctetLayout::kPieceStride, words[i], words[i + 1]);
  }
}

// Waits for an octet of all peers, adds in rank order with this rank's own, finishes. False if the wait failed.
template <uint32_t kWords>
__device__ __forceinline__ bool collect_octet(const TrellinkAllReduce& params, const Exchange& exchange, uint32_t octet,
                                              const uint32_t (&own)[kWords]) {
  // Ranks whose packets are polled together: enough to overlap the loads, few enough registers.
  constexpr uint32_t kBatch = 16 / kWords;
  const uint64_t index = OctetLayout{kWords / 2}.index(octet);
  float sum[kOctet];
#pragma unroll 1
  for (uint32_t first = 0; first < exchange.world(); first += kBatch) {
    uint32_t words[kBatch][kWords];
    if (!exchange.receive<kBatch, kWords / 2>(first, index, OctetLayout::kPieceStride, words)) return false;
#pragma unroll
    for (uint32_t r = 0; r < kBatch; ++r) {
      const uint32_t source = first + r;
      if (source >= exchange.world()) continue;
#pragma unroll
      for (uint32_t i = 0; i < kWords; ++i) words[r][i] = source == exchange.rank() ? own[i] : words[r][i];
      add_rank(source == 0, words[r], params.x_dtype, sum);
    }
  }
  finish_octet(params, octet, sum);
  return true;
}

template <uint32_t kWords>
__device__ __forceinline__ void one_shot(const TrellinkAllReduce& params, const Exchange& exchange) {
  const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x;
  const uint32_t step = gridDim.x * blockDim.x;
  if (first >= params.octets) return;
  // Most launches have one octet a thread; it stays in registers. Others read theirs twice.
  uint32_t own[kWords];
  uint32_t pushed = first;
#pragma unroll 1
  for (uint32_t octet = first; octet < params.octets; octet += step) {
    load_octet(params.x, octet, own);
    push_octet(exchange, octet, own);
    pushed = octet;
  }
#pragma unroll 1
  for (uint32_t octet = first; octet < params.octets; octet += step) {
    if (pushed != first) load_octet(params.x, octet, own);
    if (!collect_octet(params, exchange, octet, own)) return;
  }
}

}  // namespace trellink
