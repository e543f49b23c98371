// Plain words in an arena, for which a flag vouches: half the bytes of packets, for a longer wait.
//
// A rank writes words into a peer's slot, then a flag, which is a packet like any other. A peer that has
// seen the flag reads the words and puts packets in their place again.
//
// Why words may lie where packets do. Words are written in call e, in the half of its parity, after the
// receiver has finished e-2, and nothing that polls in call e polls there. The receiver puts packets
// with the tag of e back as soon as it has read the words, within call e. So at the end of every call,
// and whenever packets are polled, each tag of the half is one that a call has written, and the argument
// of exchange.cuh holds as it stands. A failed call may leave words behind; a failed group does not poll again
// before a reset has put packets everywhere.
//
// Where a peer makes another call, words may lie where it polls packets. It cannot take a call of theirs for
// its own: the first packet of every slot is polled in every call, and is a packet in every call, here a flag.
#pragma once

#include "comm/exchange.cuh"
#include "comm/octet_layout.h"

namespace trellink {

class Bulk {
 public:
  __device__ explicit Bulk(const Exchange& exchange) : exchange_(exchange) {}

  // Writes the words of an octet to `peer`, its first piece at packet `index` of this rank's slot there.
  template <uint32_t kWords>
  __device__ void write(uint32_t peer, uint64_t index, const uint32_t (&words)[kWords]) const {
    uint64_t* to = exchange_.slot(peer, exchange_.rank()) + index;
#pragma unroll
    for (uint32_t i = 0; i < kWords; i += 4) {
      ptx::st_relaxed_sys_b128(to, join(words[i], words[i + 1]), join(words[i + 2], words[i + 3]));
      to += OctetLayout::kPieceStride;
    }
  }

  // Reads the words of an octet that `source` has written here. By whoever puts the packets back.
  template <uint32_t kWords>
  __device__ void read(uint32_t source, uint64_t index, uint32_t (&words)[kWords]) const {
    const uint64_t* from = exchange_.slot(exchange_.rank(), source) + index;
#pragma unroll
    for (uint32_t i = 0; i < kWords; i += 4) {
      const ulonglong2 piece = ptx::ld_relaxed_sys_b128(from);
      words[i] = static_cast<uint32_t>(piece.x);
      words[i + 1] = static_cast<uint32_t>(piece.x >> 32);
      words[i + 2] = static_cast<uint32_t>(piece.y);
      words[i + 3] = static_cast<uint32_t>(piece.y >> 32);
      from += OctetLayout::kPieceStride;
    }
  }

  // Puts packets in the place of an octet's words.
  template <uint32_t kWords>
  __device__ void put_back(uint32_t source, uint64_t index) const {
    uint64_t* to = exchange_.slot(exchange_.rank(), source) + index;
    const Packet packet = Packet::of(0, 0, 0, exchange_.tag());
#pragma unroll
    for (uint32_t i = 0; i < kWords; i += 4) {
      store_packet(to, packet);
      to += OctetLayout::kPieceStride;
    }
  }

  // Tells every peer that all words that this CTA has written so far are there. By all its threads.
  __device__ void raise(uint64_t flag) const {
    __syncthreads();
    const uint32_t peer = threadIdx.x;
    if (peer >= exchange_.world() || peer == exchange_.rank()) return;
    // After the barrier this covers what the other threads wrote. Pairs with the fence of `await`.
    ptx::fence_sys();
    store_packet(exchange_.slot(peer, exchange_.rank()) + flag, Packet::of(0, 0, 0, exchange_.tag()));
  }

  // Waits until every peer has raised its flag. By all threads of the CTA, which all get the same answer.
  __device__ bool await(uint64_t flag) const {
    bool arrived = true;
    const uint32_t peer = threadIdx.x;
    if (peer < exchange_.world() && peer != exchange_.rank()) {
      uint32_t ignored[1][Packet::kWords];
      arrived = exchange_.receive<1, 1>(peer, flag, 0, ignored);
      ptx::fence_sys();
    }
    return __syncthreads_and(arrived) != 0;
  }

 private:
  __device__ static uint64_t join(uint32_t low, uint32_t high) { return static_cast<uint64_t>(high) << 32 | low; }

  const Exchange& exchange_;
};

}  // namespace trellink
