// The one-shot form: every rank sends all its elements to every other, as packets. The shortest wait, for (world - 1)
// times the bytes and what tags add to them: a third, for f32 a half.
//
// A thread keeps its octets to itself from the load to the store, so no thread waits for another of its rank, and output
// and input may be the same memory.
//
// The exchange is all-to-all, as exchange.cuh wants it: a launch has at least one octet, of which every
// rank sends packets to every other, and none ends before it has them of all.
#pragma once

#include "comm/exchange.cuh"
#include "reduce/octet.cuh"
#include "reduce/octet_packets.cuh"

namespace trellink {

// kWords: of an octet of the input.
template <uint32_t kWords>
class OneShot {
 public:
  // Loads this thread's first octet, if it has one: that needs nothing of the exchange.
  __device__ explicit OneShot(const TrellinkAllReduce& params)
      : params_(params), packets_(params.octets), first_(blockIdx.x * blockDim.x + threadIdx.x) {
    if (first_ < params_.octets) load_octet(params_.x, first_, own_);
  }

  __device__ void run(const Exchange& exchange) {
    const uint32_t step = gridDim.x * blockDim.x, lane = threadIdx.x % 32;
    // Most launches have one octet a thread; it stays in registers. Others read theirs twice.
    uint32_t held = first_;
    // Whole warps, of which some lanes may find no octet left.
#pragma unroll 1
    for (uint32_t octet = first_; octet - lane < params_.octets; octet += step) {
      const bool exists = octet < params_.octets;
      if (exists) hold(octet, held);
      packets_.push(exchange, exists, octet, own_);
    }
    // All of this launch is resident, so what the next one occupies while it waits is not needed.
    ptx::launch_dependents();
#pragma unroll 1
    for (uint32_t octet = first_; octet < params_.octets; octet += step) {
      hold(octet, held);
      if (!collect(exchange, octet)) return;
    }
  }

 private:
  using Packets = OctetPackets<kWords>;
  // Ranks whose packets are polled together: enough to overlap the loads, few enough registers.
  static constexpr uint32_t kBatch = 16 / kWords;

  // Loads an octet unless it is the one that is held.
  __device__ void hold(uint32_t octet, uint32_t& held) {
    if (octet != held) load_octet(params_.x, octet, own_);
    held = octet;
  }

  // Waits for an octet of all peers, adds in rank order with this rank's own, which is held, finishes. False if the wait
  // failed.
  __device__ bool collect(const Exchange& exchange, uint32_t octet) const {
    const uint64_t index = packets_.index(octet);
    const auto stride = static_cast<uint32_t>(packets_.stride(octet));
    float sum[kOctet];
#pragma unroll 1
    for (uint32_t first = 0; first < exchange.world(); first += kBatch) {
      uint32_t found[kBatch][Packets::kPackets * Packet::kWords];
      if (!exchange.receive<kBatch, Packets::kPackets>(first, index, stride, found)) return false;
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        const uint32_t source = first + r;
        if (source >= exchange.world()) continue;
        uint32_t words[kWords];
#pragma unroll
        for (uint32_t i = 0; i < kWords; ++i) {
          words[i] = source == exchange.rank() ? own_[i] : Packets::word(found[r], octet, i);
        }
        add_rank(source == 0, words, params_.x_dtype, sum);
      }
    }
    finish_octet(params_, octet, sum);
    return true;
  }

  const TrellinkAllReduce& params_;
  const Packets packets_;
  const uint32_t first_;
  uint32_t own_[kWords] = {};
};

}  // namespace trellink
