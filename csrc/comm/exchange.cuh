// One rank's side of the all-to-all exchange, as a kernel sees it.
//
// Contract
//  - A launch is one call. Every rank makes the same calls in the same order, with the same epochs.
//  - push() everything the CTA owns before the first collect(); every CTA of every rank must be
//    resident while any of them waits. A kernel that sends again after a wait says why it cannot wait
//    in a circle (reduce/two_shot.cuh).
//  - leave() last, by every thread of every CTA, exactly once.
//
// Why two halves are enough. A peer writes this half again in call e+2. It starts e+2 only after it
// has finished e+1, for which it needed our packets of e+1, and those we send only after every CTA
// of our call e has left: a call ends when its last CTA does. So nobody overwrites a packet that
// may still be read. This needs every call to be all-to-all, including ranks with nothing to add.
//
// Why tags may be compared by signed distance. A slot that many small calls never touch keeps an
// old tag, which after 2^31 calls would look ahead of the epoch. So once a period (scrub_mask) the
// last CTA to leave rewrites its own arena's half of the call's parity with the call's tag. Nobody
// else can be writing there then: by the argument above the next writers of this half wait for
// packets that this rank has not sent yet.
#pragma once

#include "comm/arena_layout.h"
#include "comm/epoch.h"
#include "comm/packet.h"
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

class Exchange {
 public:
  __device__ explicit Exchange(const TrellinkExchange& params)
      : params_(params),
        control_(reinterpret_cast<TrellinkControl*>(params.control)),
        layout_{params.world, params.slot_packets} {
    const uint64_t state = ptx::ld_relaxed_gpu_u64(reinterpret_cast<const uint64_t*>(control_));
    epoch_ = static_cast<uint32_t>(state);
    failed_ = static_cast<uint32_t>(state >> 32) != TRELLINK_STATE_OK;
  }

  // Whether an earlier call of this rank failed; then the launch must return at once.
  __device__ bool failed() const { return failed_; }

  // Sends values `value` and `value + 1` of this rank to every rank. `value` is even.
  __device__ void push(uint64_t value, float x, float y) const {
    const uint64_t index = layout_.slot(epoch_parity(epoch_), params_.rank) + value;
    const uint64_t px = packet_pack(__float_as_uint(x), epoch_);
    const uint64_t py = packet_pack(__float_as_uint(y), epoch_);
    for (uint32_t i = 0; i < params_.world; ++i) {
      // Start behind oneself, so that not every rank writes to the same peer first.
      uint32_t peer = params_.rank + 1 + i;
      peer = peer < params_.world ? peer : peer - params_.world;
      ptx::st_relaxed_sys_v2(arena(peer) + index, px, py);
    }
  }

  // Waits for values [value, value + 4) of every rank and adds them in rank order. `value` is a
  // multiple of 4. False if the wait failed; the failure is reported and sticky.
  __device__ bool collect(uint64_t value, float (&sum)[4]) const {
    for (uint32_t first = 0; first < params_.world; first += kBatch) {
      float part[kBatch][4];
      if (!collect_batch(first, value, part)) return false;
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        if (first + r < params_.world) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            sum[i] = first + r == 0 ? part[r][i] : __fadd_rn(sum[i], part[r][i]);
          }
        }
      }
    }
    return true;
  }

  __device__ uint32_t rank() const { return params_.rank; }
  __device__ uint32_t world() const { return params_.world; }
  __device__ uint32_t epoch() const { return epoch_; }

  // Where the packets begin that `source` sends to `rank` in this call.
  __device__ uint64_t* slot(uint32_t rank, uint32_t source) const {
    return arena(rank) + layout_.slot(epoch_parity(epoch_), source);
  }

  // Sends two words to every rank but this one, as packets `index` and `index + 1`. `index` is even.
  __device__ void push_to_peers(uint64_t index, uint32_t x, uint32_t y) const {
    const uint64_t px = packet_pack(x, epoch_);
    const uint64_t py = packet_pack(y, epoch_);
#pragma unroll 1
    for (uint32_t i = 1; i < params_.world; ++i) {
      uint32_t peer = params_.rank + i;
      peer = peer < params_.world ? peer : peer - params_.world;
      ptx::st_relaxed_sys_v2(slot(peer, params_.rank) + index, px, py);
    }
  }

  // Waits for words of ranks [first, first + kRanks), as far as these exist and are not this one: pairs
  // of packets at `index`, `index + stride` and so on. False if the wait failed, as for `collect`.
  template <uint32_t kRanks, uint32_t kPairs>
  __device__ bool receive(uint32_t first, uint64_t index, uint32_t stride,
                          uint32_t (&words)[kRanks][2 * kPairs]) const {
    uint64_t start_ns = 0;
    for (uint32_t polls = 1;; ++polls) {
      const Missing missing = poll<kRanks, kPairs>(first, index, stride, words);
      if (missing.count == 0) return true;
      if (missing.ahead) {
        report(TRELLINK_STATE_PEER_AHEAD, missing.rank, missing.ahead_tag, 0);
        return false;
      }
      if (polls % kPollsPerCheck == 0 && !may_go_on(missing.rank, start_ns)) return false;
    }
  }

  // Ends the call. Called by all threads of the CTA.
  __device__ void leave() const {
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
      last = ptx::atom_add_acq_rel_gpu(&control_->departed, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    if (epoch_scrubs(epoch_, control_->scrub_mask)) scrub();
    if (threadIdx.x == 0) {
      ptx::st_relaxed_gpu(&control_->departed, 0);
      ptx::st_relaxed_gpu(&control_->epoch, epoch_ + 1);
    }
  }

 private:
  // Ranks whose packets are polled together: enough to overlap the loads, few enough registers.
  static constexpr uint32_t kBatch = 2;
  // Polls between two looks at the clock and the abort word.
  static constexpr uint32_t kPollsPerCheck = 1024;

  __device__ uint64_t* arena(uint32_t rank) const { return reinterpret_cast<uint64_t*>(params_.arena[rank]); }

  __device__ bool collect_batch(uint32_t first, uint64_t value, float (&part)[kBatch][4]) const {
    uint64_t start_ns = 0;
    for (uint32_t polls = 1;; ++polls) {
      uint32_t missing = 0;
      uint32_t ahead_tag = 0;
      bool ahead = false;
      uint32_t suspect = first;
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        if (first + r < params_.world) {
          const uint64_t* p = arena(params_.rank) + layout_.slot(epoch_parity(epoch_), first + r) + value;
          const ulonglong2 packets[2] = {ptx::ld_relaxed_sys_v2(p), ptx::ld_relaxed_sys_v2(p + 2)};
          const uint64_t packet[4] = {packets[0].x, packets[0].y, packets[1].x, packets[1].y};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int32_t distance = epoch_distance(epoch_, packet_epoch(packet[i]));
            part[r][i] = __uint_as_float(packet_data(packet[i]));
            if (distance != 0) {
              missing += 1;
              suspect = first + r;
              if (distance > 0) {
                ahead = true;
                ahead_tag = packet_epoch(packet[i]);
              }
            }
          }
        }
      }
      if (missing == 0) return true;
      if (ahead) {
        report(TRELLINK_STATE_PEER_AHEAD, suspect, ahead_tag, 0);
        return false;
      }
      if (polls % kPollsPerCheck == 0 && !may_go_on(suspect, start_ns)) return false;
    }
  }

  // What a poll has not found.
  struct Missing {
    uint32_t count = 0;
    uint32_t rank = 0;  // of one that misses
    bool ahead = false;
    uint32_t ahead_tag = 0;
  };

  // One look at the packets of `receive`. `collect_batch` is the same for four neighbouring values of
  // all ranks and stays apart: the registers of the linear kernels are counted to the last one.
  template <uint32_t kRanks, uint32_t kPairs>
  __device__ Missing poll(uint32_t first, uint64_t index, uint32_t stride,
                          uint32_t (&words)[kRanks][2 * kPairs]) const {
    Missing missing;
#pragma unroll
    for (uint32_t r = 0; r < kRanks; ++r) {
      if (first + r >= params_.world || first + r == params_.rank) continue;
      const uint64_t* p = slot(params_.rank, first + r) + index;
#pragma unroll
      for (uint32_t i = 0; i < kPairs; ++i) {
        const ulonglong2 pair = ptx::ld_relaxed_sys_v2(p + i * stride);
        words[r][2 * i] = packet_data(pair.x);
        words[r][2 * i + 1] = packet_data(pair.y);
        note(first + r, packet_epoch(pair.x), missing);
        note(first + r, packet_epoch(pair.y), missing);
      }
    }
    return missing;
  }

  __device__ void note(uint32_t rank, uint32_t tag, Missing& missing) const {
    const int32_t distance = epoch_distance(epoch_, tag);
    if (distance == 0) return;
    missing.count += 1;
    missing.rank = rank;
    if (distance > 0) {
      missing.ahead = true;
      missing.ahead_tag = tag;
    }
  }

  // The slow part of a wait: looks at the clock and at the abort word.
  __device__ bool may_go_on(uint32_t peer, uint64_t& start_ns) const {
    const uint64_t now = ptx::globaltimer_ns();
    if (start_ns == 0) start_ns = now;
    if (ptx::ld_relaxed_sys(reinterpret_cast<const uint32_t*>(params_.abort)) != 0) {
      ptx::atom_cas_relaxed_gpu(&control_->failed, TRELLINK_STATE_OK, TRELLINK_STATE_ABORTED);
      return false;
    }
    const uint64_t waited = now - start_ns;
    if (waited < ptx::ld_relaxed_gpu_u64(&control_->timeout_ns)) return true;
    report(TRELLINK_STATE_PEER_TIMEOUT, peer, 0, waited);
    return false;
  }

  // Makes the failure sticky on this rank, tells the host, and asks every other rank to stop.
  __device__ void report(uint32_t state, uint32_t peer, uint32_t found, uint64_t waited) const {
    // The first failure is the one that explains the others.
    if (ptx::atom_cas_relaxed_gpu(&control_->failed, TRELLINK_STATE_OK, state) == TRELLINK_STATE_OK) {
      auto* out = reinterpret_cast<TrellinkReport*>(params_.report);
      out->rank = params_.rank;
      out->peer = peer;
      out->epoch = epoch_;
      out->found = found;
      out->waited_ns = waited;
      ptx::fence_sys();
      ptx::st_relaxed_sys(&out->state, state);
    }
    ptx::st_relaxed_sys(reinterpret_cast<uint32_t*>(params_.abort), 1);
  }

  __device__ void scrub() const {
    uint64_t* half = arena(params_.rank) + layout_.slot(epoch_parity(epoch_), 0);
    const uint64_t packet = packet_pack(0, epoch_);
    for (uint64_t i = 2 * threadIdx.x; i < layout_.half_packets(); i += 2 * blockDim.x) {
      ptx::st_relaxed_sys_v2(half + i, packet, packet);
    }
    ptx::fence_sys();
    __syncthreads();
  }

  const TrellinkExchange& params_;
  TrellinkControl* control_;
  ArenaLayout layout_;
  uint32_t epoch_;
  bool failed_;
};

}  // namespace trellink
