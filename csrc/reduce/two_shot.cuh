// The two-shot form: a reduce-scatter, then an all-gather. Every rank owns a part of the message, gets
// the others' contributions to it, adds, and sends the result to all. Two waits, for
// 2 (world - 1) / world times the bytes: both ways words go as they are, behind flags (comm/bulk.cuh).
//
// The result travels as what becomes of it: where the output is stored, as output elements, which the
// owner has rounded, once; where it is added to a residual, as the f32 sums. So the bits are those of the
// one-shot form.
//
// Who waits for whom. A part is cut into chunks, by the message alone: the same on all ranks, whatever
// their grids. Chunk c of every part is the business of one CTA of each rank, in three phases: send
// contributions, without a wait; wait for contributions, send results; wait for results. Each phase
// takes all chunks of the CTA before the next phase begins, so the first phase of every resident CTA ends,
// hence the second, hence the third. No CTA waits for another of its rank.
//
// Why two halves of the arena are enough, as in exchange.cuh. A call ends on a rank only when it has seen
// every peer's flags of results, all of them, even of empty chunks; so every peer was in the call, and had
// finished the one before. Contributions and results have areas of their own in a slot, so a peer that is
// at its results does not touch contributions that are still to be read.
#pragma once

#include "comm/bulk.cuh"
#include "reduce/octet.cuh"

namespace trellink {

// kWords: of an octet of the input; kResultWords: of an octet of results.
template <uint32_t kWords, uint32_t kResultWords>
class TwoShot {
 public:
  __device__ TwoShot(const TrellinkAllReduce& params, const Exchange& exchange)
      : params_(params),
        bulk_(exchange),
        rank_(exchange.rank()),
        layout_{exchange.world(), params.octets, params.chunks, OctetLayout{kWords / 4},
                OctetLayout{kResultWords / 4}} {}

  __device__ void run() const {
    for (uint32_t c = blockIdx.x; c < layout_.chunks; c += gridDim.x) send_contributions(c);
    for (uint32_t c = blockIdx.x; c < layout_.chunks; c += gridDim.x) {
      if (!bulk_.await(layout_.contribution_flag(c))) return;
      reduce(c);
    }
    for (uint32_t c = blockIdx.x; c < layout_.chunks; c += gridDim.x) {
      if (!bulk_.await(layout_.result_flag(c))) return;
      gather(c);
    }
  }

 private:
  // Contributions that are read together.
  static constexpr uint32_t kBatch = 16 / kWords;

  // The i-th rank behind this one: not all ranks begin with the same peer.
  __device__ uint32_t behind(uint32_t i) const {
    const uint32_t rank = rank_ + i;
    return rank < layout_.world ? rank : rank - layout_.world;
  }

  // Calls f(octet of the part) for this thread's octets of a chunk.
  template <class F>
  __device__ void for_octets(uint32_t owner, uint32_t chunk, F&& f) const {
    const uint32_t end = layout_.chunk(owner, chunk + 1);
    for (uint32_t octet = layout_.chunk(owner, chunk) + threadIdx.x; octet < end; octet += blockDim.x) f(octet);
  }

  __device__ void send_contributions(uint32_t chunk) const {
#pragma unroll 1
    for (uint32_t i = 1; i < layout_.world; ++i) {
      const uint32_t owner = behind(i);
      for_octets(owner, chunk, [&](uint32_t octet) {
        uint32_t words[kWords];
        load_octet(params_.x, layout_.part(owner) + octet, words);
        bulk_.write(owner, contribution(octet), words);
      });
    }
    bulk_.raise(layout_.contribution_flag(chunk));
  }

  // Adds up a chunk of the own part, finishes it here and sends it to all.
  __device__ void reduce(uint32_t chunk) const {
    for_octets(rank_, chunk, [&](uint32_t octet) {
      float sum[kOctet];
      add_ranks(octet, sum);
      uint32_t result[kResultWords];
      pack_octet(sum, params_.out_dtype, result);
#pragma unroll 1
      for (uint32_t i = 1; i < layout_.world; ++i) bulk_.write(behind(i), this->result(octet), result);
      finish_octet(params_, layout_.part(rank_) + octet, sum);
    });
    bulk_.raise(layout_.result_flag(chunk));
  }

  __device__ void add_ranks(uint32_t octet, float (&sum)[kOctet]) const {
#pragma unroll 1
    for (uint32_t first = 0; first < layout_.world; first += kBatch) {
      uint32_t words[kBatch][kWords];
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        if (first + r >= layout_.world) continue;
        if (first + r == rank_) {
          load_octet(params_.x, layout_.part(rank_) + octet, words[r]);
        } else {
          bulk_.read(first + r, contribution(octet), words[r]);
        }
      }
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        if (first + r >= layout_.world) continue;
        add_rank(first + r == 0, words[r], params_.x_dtype, sum);
        if (first + r != rank_) bulk_.template put_back<kWords>(first + r, contribution(octet));
      }
    }
  }

  // Writes a chunk of every other part to the output.
  __device__ void gather(uint32_t chunk) const {
#pragma unroll 1
    for (uint32_t i = 1; i < layout_.world; ++i) {
      const uint32_t owner = behind(i);
      for_octets(owner, chunk, [&](uint32_t octet) {
        uint32_t words[kResultWords];
        bulk_.read(owner, result(octet), words);
        bulk_.template put_back<kResultWords>(owner, result(octet));
        if (params_.epilogue == TRELLINK_EPILOGUE_STORE) {
          store_octet(params_.out, layout_.part(owner) + octet, words);
        } else {
          float sum[kOctet];
          unpack_octet(words, TRELLINK_DTYPE_F32, sum);
          finish_octet(params_, layout_.part(owner) + octet, sum);
        }
      });
    }
  }

  __device__ uint64_t contribution(uint32_t octet) const {
    return layout_.contributions() + layout_.contribution.index(octet);
  }
  __device__ uint64_t result(uint32_t octet) const { return layout_.results() + layout_.result.index(octet); }

  const TrellinkAllReduce& params_;
  Bulk bulk_;
  uint32_t rank_;
  TwoShotLayout layout_;
};

template <uint32_t kWords>
__device__ __forceinline__ void two_shot(const TrellinkAllReduce& params, const Exchange& exchange) {
  if (params.epilogue == TRELLINK_EPILOGUE_ADD || params.out_dtype == TRELLINK_DTYPE_F32) {
    TwoShot<kWords, kFloatWords>(params, exchange).run();
  } else {
    TwoShot<kWords, kHalfWords>(params, exchange).run();
  }
}

}  // namespace trellink
