// One rank's side of the all-to-all exchange, as a kernel sees it.
//
// Contract
//  - A launch is one call. Every rank makes the same calls in the same order, with the same epochs. If one
//    does not, its packets say so: they carry the operation beside the epoch, and every packet is looked at.
//  - Push everything the CTA owns before the first look at what others push; every CTA of every rank must be
//    resident while any of them waits. A kernel that sends again after a wait says why it cannot wait
//    in a circle (reduce/two_shot.cuh).
//  - enter() first, which enters_plainly() may spare, and leave() last, by every thread of every CTA, exactly once; every
//    CTA pushes something that every other rank collects, or one of its cluster does when all of that have scrubbed.
//
// Why two halves are enough. A peer writes this half again in call e+2. It starts e+2 only after it
// has finished e+1, for which it needed our packets of e+1, and those we send only after every CTA
// of our call e has left: the launches of a rank follow one another. So nobody overwrites a packet
// that may still be read. This needs every call to be all-to-all, including ranks with nothing to add.
//
// Why every CTA has its own epoch. The next launch needs all of this one to have ended anyway, so a
// count of the CTAs that have left would tell nothing new, and cost a round trip to L2 at the end.
//
// Why tags may be compared by signed distance. A slot that many small calls never touch keeps an
// old tag, which after 2^15 calls would look ahead of the epoch. So in two epochs of every period
// (scrub_mask) each CTA, before it pushes anything, rewrites its part of the other half with the tag
// of the call before. That half's packets have been read, in the call before; and its next writers
// are peers in the call after, which need a packet from each of our CTAs before they get there.
#pragma once

#include "comm/arena_layout.h"
#include "comm/epoch.h"
#include "comm/fault.cuh"
#include "comm/packet.cuh"
#include "comm/sum_layout.h"
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

// What a CTA has to read before it can take part, the same for all its threads.
struct ExchangeState {
  uint32_t epoch, failed, scrub_mask;
  uint32_t stop;  // what a peer that failed has left

  // Starts the loads. What is done before the state is looked at overlaps them.
  static __device__ ExchangeState load(const TrellinkExchange& params) {
    const auto* control = reinterpret_cast<const TrellinkControl*>(params.control);
    return {ptx::ld_relaxed_gpu(reinterpret_cast<const uint32_t*>(params.epochs) + blockIdx.x),
            ptx::ld_relaxed_gpu(&control->failed), ptx::ld_relaxed_gpu(&control->scrub_mask),
            fault::stops()                      ? TRELLINK_STATE_ABORTED
            : fault::has(fault::kUnboundedWait) ? TRELLINK_STATE_OK
                                                : ptx::ld_relaxed_sys(reinterpret_cast<const uint32_t*>(params.stop))};
  }

  // Whether this rank or a peer has failed, so that the launch must not begin.
  __device__ bool ends() const { return failed != TRELLINK_STATE_OK || stop == TRELLINK_STATE_ABORTED; }

  // How a wait has ended.
  struct End {
    uint32_t state, peer, found, tile;
    uint64_t waited_ns;
  };

  // Keeps the first failure of this rank, which explains the others.
  static __device__ void report(const TrellinkExchange& params, uint32_t epoch, const End& end) {
    auto* control = reinterpret_cast<TrellinkControl*>(params.control);
    if (ptx::atom_cas_relaxed_gpu(&control->failed, TRELLINK_STATE_OK, end.state) != TRELLINK_STATE_OK) return;
    auto* to = reinterpret_cast<TrellinkReport*>(params.report);
    to->rank = params.rank;
    to->peer = end.peer;
    to->epoch = epoch;
    to->found = end.found;
    to->tile = end.tile;
    to->waited_ns = end.waited_ns;
    to->operation = params.operation;
    ptx::fence_sys();
    ptx::st_relaxed_sys(&to->state, end.state);
  }
};

class Exchange {
 public:
  __device__ Exchange(const TrellinkExchange& params, const ExchangeState& state)
      : params_(params), layout_{params.world, params.slot_packets}, state_(state), tag_(tag_pack(state.epoch, params.operation.tag)) {}

  // Begins the call. False if an earlier one failed or a peer has asked this rank to stop; then the launch must return at
  // once.
  __device__ bool enter() const {
    if (state_.ends()) {
      report_stop();
      return false;
    }
    hold_up();
    if (scrubs()) scrub();
    return true;
  }

  // Whether enter() has nothing to do and need not be called.
  __device__ bool enters_plainly() const { return !(fault::holds_up() || state_.ends() || scrubs()); }

  // Whether enter() rewrites old tags in this call.
  __device__ bool scrubs() const { return epoch_scrubs(state_.epoch, state_.scrub_mask); }

  // Sends two neighbouring sums of this rank, x and y, to every rank. Eight neighbouring lanes, the first of them a
  // multiple of eight, have a strip of run `run` of the message, the strip-th; all lanes of the warp come here, and
  // those with `has` take part.
  __device__ void push_strip(bool has, uint64_t run, uint32_t strip, float x, float y) const {
    const uint32_t pair = ptx::opaque(threadIdx.x) % (SumLayout::kStrip / 2);
    const uint32_t quad = strip * SumLayout::kStripQuads + pair / 2;
    const float third = __shfl_xor_sync(0xffffffffu, x, 1);
    const float fourths[2] = {__shfl_xor_sync(0xffffffffu, y, 2), __shfl_xor_sync(0xffffffffu, y, 4)};
    // The first lane of a quad sends its three; the second lane of the first and of the last quad sends fourths.
    const bool threes = pair % 2 == 0;
    if (!has || pair == 3 || pair == 5) return;
    const uint64_t index = SumLayout::run(run) + (threes ? SumLayout::threes(quad) : SumLayout::fourth(quad));
    const Packet packet = threes ? packet_of(x, y, third) : packet_of(y, fourths[0], fourths[1]);
    send(kAll, index, packet);
  }

  // Where a wait began, if it has gone on for so long that it was asked.
  struct Wait {
    uint64_t start_ns = 0;
  };

  // Looks for the sums of a quad of every rank, for about a millisecond if it must, and adds them in rank order. Lane l
  // of a warp has quad l of run `run` of the message. keeps_own: this rank's have not been sent, but are in `sum`. All
  // lanes look together. False if not all have come; then `sum` is void, and only if wait_longer() allows it may the warp
  // look again. The caller asks, before it looks: what is rarely done shall not lie between the arrival and what
  // follows it.
  __device__ bool look(uint64_t run, uint32_t lane, bool keeps_own, float (&sum)[4]) const {
    hold_up();
    const Packet own[2] = {packet_of(sum[0], sum[1], sum[2]), packet_of(sum[3], sum[3], sum[3])};
    const uint32_t fourth_word = SumLayout::fourth_word(lane);
#pragma unroll 1
    for (uint32_t first = 0; first < params_.world; first += kBatch) {
      Packet found[kBatch][2];
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
#pragma unroll
        for (int i = 0; i < 2; ++i) found[r][i] = own[i];
      }
      const Awaited awaited = sums(run, lane, keeps_own, first);
      uint32_t polls = 0;
#pragma unroll 1
      while (!__all_sync(0xffffffffu, poll(awaited, found) == 0)) {
        if (++polls == polls_per_check()) return false;
      }
#pragma unroll
      for (uint32_t r = 0; r < kBatch; ++r) {
        if (first + r >= params_.world) continue;
        const Packet &threes = found[r][0], &fourths = found[r][1];
        const uint32_t fourth = fourth_word == 0 ? fourths.word(0) : fourth_word == 1 ? fourths.word(1) : fourths.word(2);
        const uint32_t words[4] = {threes.word(0), threes.word(1), threes.word(2), fourth};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float part = __uint_as_float(words[i]);
          sum[i] = first + r == 0 ? part : __fadd_rn(sum[i], part);
        }
      }
    }
    return true;
  }

  // Whether a lane may look again for what look() has not found. If not, the failure is reported and sticky.
  __device__ bool wait_longer(uint64_t run, uint32_t lane, bool keeps_own, Wait& wait) const {
    return may_go_on(sums(run, lane, keeps_own, 0), params_.world, 2, wait);
  }

  // Waits for the sums of a quad of every rank, which all have been sent. By all lanes of a warp, which get the same
  // answer: false if the wait failed; the failure is reported and sticky.
  __device__ bool collect(uint64_t run, uint32_t lane, float (&sum)[4]) const {
    Wait wait;
    while (!look(run, lane, false, sum)) {
      if (!__all_sync(0xffffffffu, wait_longer(run, lane, false, wait))) return false;
    }
    return true;
  }

  // Where the sums of a quad of this rank go, as far as the call does not say: places behind the beginning of a half of an
  // arena, and the first arena.
  struct QuadPlaces {
    uint64_t threes, fourth, arena;

    QuadPlaces() = default;
    // Lane l of a warp has quad l of run `run`.
    __device__ QuadPlaces(const TrellinkExchange& params, uint64_t run, uint32_t lane) {
      const uint64_t first = ArenaLayout{params.world, params.slot_packets}.slot(0, params.rank) + SumLayout::run(run);
      threes = first + SumLayout::threes(lane);
      fourth = first + SumLayout::fourth(lane);
      arena = params.arena[next_rank(params, params.rank)];
    }
  };

  // Sends the sums of a quad of this rank to every other rank, lane l of a warp those of quad l of the places' run.
  __device__ void push_to_peers(const QuadPlaces& places, uint32_t lane, const float4& v) const {
    const float fourths[2] = {__shfl_xor_sync(0xffffffffu, v.w, 1), __shfl_xor_sync(0xffffffffu, v.w, 2)};
    const Packet three = packet_of(v.x, v.y, v.z), fourth = packet_of(v.w, fourths[0], fourths[1]);
    // The first lane of a strip sends the fourths of the first three, the last lane its own.
    const uint32_t quad = lane % SumLayout::kStripQuads;
    const bool has_fourth = quad != 1 && quad != 2;
    const uint64_t half = layout_.slot(parity(), 0);
    auto* to = reinterpret_cast<uint64_t*>(places.arena) + half;
    uint32_t peer = next_rank(params_, params_.rank);
#pragma unroll 1
    for (uint32_t peers = params_.world; --peers != 0;) {
      const uint64_t index = places.threes - layout_.slot(0, params_.rank);
      if (!fault::drops(state_.epoch, params_.rank, peer, index)) store_packet(to + places.threes, three);
      if (has_fourth) store_packet(to + places.fourth, fourth);
      peer = next_rank(params_, peer);
      to = arena(peer) + half;
    }
  }

  __device__ uint32_t rank() const { return params_.rank; }
  __device__ uint32_t world() const { return params_.world; }
  // What every packet of this call carries.
  __device__ uint32_t tag() const { return tag_; }

  // Where the packets begin that `source` sends to `rank` in this call.
  __device__ uint64_t* slot(uint32_t rank, uint32_t source) const {
    return arena(rank) + layout_.slot(parity(), source);
  }

  // Sends three words to every rank but this one, as the packet at place `index` of the slot there.
  __device__ void push_to_peers(uint64_t index, uint32_t a, uint32_t b, uint32_t c) const {
    send(kPeers, index, Packet::of(a, b, c, tag_));
  }

  // Waits for words of ranks [first, first + kRanks), as far as these exist and are not this one: those of the packets
  // at `index`, `index + stride` and so on. False if the wait failed, as for `collect`.
  template <uint32_t kRanks, uint32_t kPackets>
  __device__ bool receive(uint32_t first, uint64_t index, uint32_t stride,
                          uint32_t (&words)[kRanks][Packet::kWords * kPackets]) const {
    hold_up();
    const Awaited awaited = {first, params_.rank, index, stride, static_cast<uint32_t>(index / kReducePlaces)};
    Packet found[kRanks][kPackets]{};
    Wait wait;
#pragma unroll 1
    for (uint32_t polls = 1; poll(awaited, found) != 0; ++polls) {
      if (polls % polls_per_check() == 0 && !may_go_on(awaited, kRanks, kPackets, wait)) return false;
    }
#pragma unroll
    for (uint32_t r = 0; r < kRanks; ++r) {
#pragma unroll
      for (uint32_t i = 0; i < Packet::kWords * kPackets; ++i) {
        words[r][i] = found[r][i / Packet::kWords].word(i % Packet::kWords);
      }
    }
    return true;
  }

  // Where the CTAs of this rank post words for each other about the runs of the message, of which there are `runs`: nobody
  // else writes there. Who posts writes all kPostCopies of it, who reads takes one, of which any number tells which.
  __device__ uint64_t* posts(uint32_t runs, uint32_t copy) const {
    return slot(params_.rank, params_.rank) + SumLayout::run(runs) + SumLayout::post(copy % SumLayout::kPostCopies * runs);
  }

  // Posts a word about the run whose post this is.
  __device__ void post(uint64_t* post, uint32_t word) const {
    store_packet(post, Packet::of(word, 0, 0, tag_posted(tag_)));
  }

  // Looks for what is posted about `count` runs, as look() does for sums: words[i] about run `index` + i * `stride`, and 0
  // beyond the last. `posts`: of all of them.
  template <uint32_t kWords>
  __device__ bool look_for_posts(const uint64_t* posts, uint32_t index, uint32_t stride, uint32_t count,
                                 uint32_t (&words)[kWords]) const {
    const uint64_t* from = posts + SumLayout::post(index);
#pragma unroll 1
    for (uint32_t polls = 0; polls < polls_per_check(); ++polls) {
      uint32_t missing = 0;
#pragma unroll
      for (uint32_t i = 0; i < kWords; ++i) {
        words[i] = 0;
        if (index + i * stride >= count) continue;
        const Packet packet = load_packet(from + SumLayout::post(i * stride));
        words[i] = packet.word(0);
        missing |= packet.tag() ^ tag_posted(tag_);
      }
      if (__all_sync(0xffffffffu, missing == 0 || fault::has(fault::kAnyTag))) return true;
    }
    return false;
  }

  // Whether the warp may look again for what look_for_posts() has not found. If not, the failure is reported and sticky.
  __device__ bool wait_longer_for_posts(uint32_t run, Wait& wait) const {
    return goes_on(judge_time(params_.rank, run, wait));
  }

  // Ends the call.
  __device__ void leave() const {
    // All threads have read the epoch by now.
    __syncthreads();
    const uint32_t ctas = ptx::grid_ctas();
    for (uint32_t i = blockIdx.x + ctas * threadIdx.x; i < TRELLINK_MAX_CTAS; i += ctas * blockDim.x) {
      ptx::st_relaxed_gpu(epochs() + i, state_.epoch + 1);
    }
  }

 private:
  // Ranks whose packets are polled together: enough to overlap the loads, few enough registers.
  static constexpr uint32_t kBatch = 2;
  // Polls between two looks at the clock and the abort word.
  static __device__ uint32_t polls_per_check() { return fault::has(fault::kUnaskedWait) ? 1u << 31 : 1024; }
  // Places of a tile of an all-reduce, as reports count them; a layer's tile is a run.
  static constexpr uint32_t kReducePlaces = 128;

  using End = ExchangeState::End;

  __device__ TrellinkReport* out() const { return reinterpret_cast<TrellinkReport*>(params_.report); }
  __device__ uint32_t parity() const { return fault::has(fault::kOneHalf) ? 0 : epoch_parity(state_.epoch); }
  __device__ uint32_t* epochs() const { return reinterpret_cast<uint32_t*>(params_.epochs); }
  __device__ uint64_t* arena(uint32_t rank) const { return reinterpret_cast<uint64_t*>(params_.arena[rank]); }

  // Reports that a peer has asked this rank to stop: whoever failed may want to know what this rank was about to do, and
  // launches that do not exchange with other ranks shall not begin either. Here and not where the word is read: a report
  // ahead of a main loop changes its schedule (docs/performance.md, section 25).
  __device__ void report_stop() const {
    if (state_.stop != TRELLINK_STATE_ABORTED || ptx::opaque(threadIdx.x) != 0) return;
    ExchangeState::report(params_, state_.epoch, {TRELLINK_STATE_ABORTED, params_.rank, 0, 0, 0});
  }

  __device__ void hold_up() const { fault::hold_up(state_.epoch, params_.rank, params_.world); }

  __device__ Packet packet_of(float a, float b, float c) const {
    return Packet::of(__float_as_uint(a), __float_as_uint(b), __float_as_uint(c), tag_);
  }

  // The rank that is written to behind another. Not all begin with the same one.
  static __device__ uint32_t next_rank(const TrellinkExchange& params, uint32_t rank) {
    return rank + 1 == params.world ? 0 : rank + 1;
  }

  // To how many ranks less than all a packet goes: to every one, or to every other one.
  enum To : uint32_t { kAll = 0, kPeers = 1 };

  // Sends a packet, first to the rank behind this one, so that not all write to the same peer at a time, and to itself last.
  __device__ void send(To to, uint64_t index, const Packet& packet) const {
#pragma unroll 1
    for (uint32_t i = 1; i <= params_.world - to; ++i) {
      uint32_t peer = params_.rank + i;
      peer = peer < params_.world ? peer : peer - params_.world;
      if (fault::drops(state_.epoch, params_.rank, peer, index)) continue;
      store_packet(slot(peer, params_.rank) + index, packet);
    }
  }

  // Packets that are waited for: at places `index`, `index + stride` and so on, of ranks `first` and following ones, but
  // not of rank `without`; and the tile that reports name.
  struct Awaited {
    uint32_t first, without;
    uint64_t index;
    uint32_t stride, tile;
  };

  // Those of a quad.
  __device__ Awaited sums(uint64_t run, uint32_t lane, bool keeps_own, uint32_t first) const {
    const uint32_t threes = SumLayout::threes(lane);
    return {first, keeps_own ? params_.rank : TRELLINK_MAX_WORLD, SumLayout::run(run) + threes,
            SumLayout::fourth(lane) - threes, static_cast<uint32_t>(run)};
  }

  // One look at kPackets packets of each of kRanks ranks, as far as there are so many. 0 if all have arrived. What else
  // they may be is seen to by may_go_on(): here a few instructions a packet lie between arrival and use.
  template <uint32_t kRanks, uint32_t kPackets>
  __device__ uint32_t poll(const Awaited& awaited, Packet (&found)[kRanks][kPackets]) const {
    uint32_t missing = 0;
#pragma unroll
    for (uint32_t r = 0; r < kRanks; ++r) {
      const uint32_t source = awaited.first + r;
      if (source >= params_.world || source == awaited.without) continue;
      const uint64_t* place = slot(params_.rank, source) + awaited.index;
#pragma unroll
      for (uint32_t i = 0; i < kPackets; ++i) {
        found[r][i] = load_packet(place + i * awaited.stride);
        missing |= found[r][i].tag() ^ tag_;
      }
    }
    return fault::has(fault::kAnyTag) ? 0 : missing;
  }

  // The slow part of a wait for `packets` packets of each of up to `ranks` ranks. False if it is to end; then the failure
  // is reported and sticky.
  __device__ bool may_go_on(const Awaited& awaited, uint32_t ranks, uint32_t packets, Wait& wait) const {
    return goes_on(judge(awaited, ranks, packets, wait));
  }

  // How a wait stands: looks for packets that are wrong, and if some are missing at the time.
  __device__ End judge(const Awaited& awaited, uint32_t ranks, uint32_t packets, Wait& wait) const {
    uint32_t suspect = params_.world;
    const uint32_t end = awaited.first + ranks < params_.world ? awaited.first + ranks : params_.world;
#pragma unroll 1
    for (uint32_t source = awaited.first; source < end; ++source) {
      if (source == awaited.without) continue;
      const uint64_t* place = slot(params_.rank, source) + awaited.index;
#pragma unroll 1
      for (uint32_t i = 0; i < packets; ++i) {
        const uint32_t tag = load_packet(place + i * awaited.stride).tag();
        if (tag == tag_) continue;
        // One that is wrong counts: others, of other ranks, may merely be late.
        if (!fault::has(fault::kEqual) && !tag_is_stale(tag_, tag)) {
          return {state_of_wrong(tag), source, tag, awaited.tile, 0};
        }
        if (suspect == params_.world) suspect = source;
      }
    }
    if (suspect == params_.world) return {TRELLINK_STATE_OK, 0, 0, 0, 0};
    return judge_time(suspect, awaited.tile, wait);
  }

  // The same of a wait in which nothing is wrong: looks at the clock, the abort word and the deadline.
  __device__ End judge_time(uint32_t peer, uint32_t tile, Wait& wait) const {
    if (fault::has(fault::kUnboundedWait)) return {TRELLINK_STATE_OK, 0, 0, 0, 0};
    const uint64_t now = ptx::globaltimer_ns();
    if (wait.start_ns == 0) wait.start_ns = now;
    const uint64_t waited = now - wait.start_ns;
    uint32_t state = TRELLINK_STATE_OK;
    if (waited >= ptx::ld_relaxed_sys_u64(&out()->timeout_ns)) state = TRELLINK_STATE_PEER_TIMEOUT;
    if (ptx::ld_relaxed_sys(reinterpret_cast<const uint32_t*>(params_.abort)) != 0) state = TRELLINK_STATE_ABORTED;
    return {state, peer, 0, tile, waited};
  }

  // What a packet has come for that no rank may send now. Of the next call in this half, or of another operation; any
  // other tag is none, but a word of a two-shot all-reduce (bulk.cuh) where packets of this call should be.
  __device__ uint32_t state_of_wrong(uint32_t tag) const {
    return tag_distance(tag_, tag) == 2 ? TRELLINK_STATE_PEER_AHEAD : TRELLINK_STATE_MISMATCH;
  }

  // Whether a wait that stands so goes on. A failure is made sticky on this rank and told to the host, and unless it came
  // from another rank, every other one is asked to stop. Who is not the cause reports too: the host wants to know
  // what the rank was doing.
  __device__ bool goes_on(const End& end) const {
    if (end.state == TRELLINK_STATE_OK) return true;
    ExchangeState::report(params_, state_.epoch, end);
    if (end.state == TRELLINK_STATE_ABORTED) return false;
    ptx::st_relaxed_sys(reinterpret_cast<uint32_t*>(params_.abort), 1);
#pragma unroll 1
    for (uint32_t r = 0; r < params_.world; ++r) {
      ptx::st_relaxed_sys(reinterpret_cast<uint32_t*>(arena(r) + layout_.stop()), TRELLINK_STATE_ABORTED);
    }
    return false;
  }

  __device__ void scrub() const {
    const uint32_t before = state_.epoch - 1;
    uint64_t* half = arena(params_.rank) + layout_.slot(epoch_parity(before), 0);
    const Packet packet = Packet::of(0, 0, 0, tag_pack(before, 0));
    const uint64_t stride = 2ull * ptx::grid_ctas() * blockDim.x;
    // Opaque, or it is found out before the main loop and takes registers there.
    const uint32_t thread = blockIdx.x * blockDim.x + ptx::opaque(threadIdx.x);
    for (uint64_t i = 2 * thread; i < layout_.half_packets(); i += stride) {
      store_packet(half + i, packet);
    }
    // Before this CTA's packets, on which the next writers of the half depend.
    ptx::fence_sys();
    __syncthreads();
  }

  const TrellinkExchange& params_;
  const ArenaLayout layout_;
  const ExchangeState state_;
  const uint32_t tag_;
};

}  // namespace trellink
