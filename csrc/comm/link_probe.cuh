// Whether the way between two devices does what the exchange relies on.
//
// Both devices run this CTA at the same time, each with a mailbox in memory of its own and one in the
// peer's. What is judged is the way towards this device; the peer judges the other one. A round is an
// exchange in small:
//
//  - Packets go to the peer and are polled until they have this round's tag. The 128 bits that are seen
//    must always be such a packet: single-copy atomicity, all that exchange.cuh asks for.
//  - Words without tags go before a flag, as in bulk.cuh, from another warp than raises it: who has seen
//    the flag must find them.
//  - Now and then words that the peer has written to its own memory are loaded from there.
//
// Why nobody overwrites what may still be read: there are two halves, as in an arena, and a side begins
// round r+2 only with the flag of r+1, which the peer has raised after all its reads of round r. Words
// that are loaded from the peer have one place, and many rounds between two uses of it.
//
// A probe ends at its deadline at the latest, whatever the link does.
#pragma once

#include "comm/epoch.h"
#include "comm/packet.cuh"
#include "params.h"
#include "ptx/ptx.cuh"

namespace trellink {

// A mailbox, in words: [packets of two halves][words of two halves][flags of two halves][words to be loaded].
struct Mailbox {
  static constexpr uint32_t kLanes = TRELLINK_LINK_PROBE_THREADS / 2;
  static constexpr uint32_t kHalf = 2 * kLanes;

  static __device__ uint32_t packets(uint32_t parity, uint32_t lane) { return parity * kHalf + 2 * lane; }
  static __device__ uint32_t words(uint32_t parity, uint32_t lane) { return (2 + parity) * kHalf + 2 * lane; }
  static __device__ uint32_t flag(uint32_t parity) { return 4 * kHalf + 2 * parity; }
  static __device__ uint32_t exhibit(uint32_t lane) { return 4 * kHalf + 4 + 2 * lane; }
  static constexpr uint32_t kEnd = 4 * kHalf + 4 + kHalf;
};
static_assert(Mailbox::kEnd <= TRELLINK_LINK_PROBE_WORDS, "a mailbox holds what a probe writes");

class LinkProbe {
 public:
  __device__ explicit LinkProbe(const TrellinkLinkProbe& params)
      : params_(params), deadline_ns_(ptx::globaltimer_ns() + params.timeout_ns) {}

  // By all threads of the CTA.
  __device__ void run() {
    uint64_t started_ns = 0;
    uint32_t round = 0;
    while (round < params_.rounds && play(round)) {
      // The first round waits for the peer's launch.
      if (round++ == 0) started_ns = ptx::globaltimer_ns();
    }
    conclude(round, round == 0 ? 0 : ptx::globaltimer_ns() - started_ns);
  }

 private:
  // Rounds between two loads from the peer's memory.
  static constexpr uint32_t kLoadPeriod = 16;
  // Polls between two looks at the clock.
  static constexpr uint32_t kPollsPerCheck = 64;

  // What a thread has seen that is wrong, the first of it.
  struct Finding {
    uint32_t state, word;
    uint64_t expected, found;

    __device__ bool good() const { return state == TRELLINK_LINK_GOOD; }
    // Who misses something may do so because something else went wrong.
    __device__ bool explains(const Finding& other) const {
      const bool misses = other.state == TRELLINK_LINK_NO_PACKET || other.state == TRELLINK_LINK_NO_FLAG;
      return !good() && (other.good() || (misses && state > TRELLINK_LINK_NO_FLAG));
    }
  };

  __device__ uint64_t* own() const { return reinterpret_cast<uint64_t*>(params_.own); }
  __device__ uint64_t* peer() const { return reinterpret_cast<uint64_t*>(params_.peer); }
  __device__ static uint32_t lane() { return threadIdx.x % Mailbox::kLanes; }
  // The first half of the threads has the packets and the flag, the second the words.
  __device__ static bool has_packets() { return threadIdx.x < Mailbox::kLanes; }

  // 32 bits of a place in a round. Those of two rounds differ in about every second bit.
  __device__ static uint32_t value(uint32_t tag, uint32_t word) {
    uint32_t value = tag * 0x9e3779b1u ^ word * 0x85ebca77u;
    value = (value ^ value >> 15) * 0x2c1b3c6du;
    return value ^ value >> 13;
  }
  // What the 64 bits at a place are in a round.
  __device__ static uint64_t plain(uint32_t tag, uint32_t word) {
    return static_cast<uint64_t>(value(~tag, word)) << 32 | value(tag, word);
  }
  // The packet at two places.
  __device__ static Packet packet(uint32_t tag, uint32_t word) {
    const uint64_t low = plain(tag, word);
    return Packet::of(static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), value(tag, word + 1), tag);
  }
  __device__ static bool same(const Packet& a, const Packet& b) { return a.low == b.low && a.high == b.high; }

  // One round; false if the probe is over.
  __device__ bool play(uint32_t round) {
    const uint32_t tag = params_.first_tag + round;
    const bool loads = round % kLoadPeriod == 0;
    send(tag, loads);
    if (has_packets()) await_packets(tag);
    if (threadIdx.x == 0) await_flag(tag);
    // Only now, so that everyone waits for the flag. Also ends the probe for what was found a round ago.
    if (!__syncthreads_and(finding_.good())) return false;
    if (!has_packets()) check_words(tag, loads);
    return true;
  }

  __device__ void send(uint32_t tag, bool loads) const {
    const uint32_t parity = epoch_parity(tag);
    if (has_packets()) {
      const uint32_t word = Mailbox::packets(parity, lane());
      store_packet(peer() + word, packet(tag, word));
    } else {
      const uint32_t word = Mailbox::words(parity, lane());
      ptx::st_relaxed_sys_b128(peer() + word, plain(tag, word), plain(tag, word + 1));
      if (loads) {
        const uint32_t shown = Mailbox::exhibit(lane());
        ptx::st_relaxed_sys_b128(own() + shown, plain(tag, shown), plain(tag, shown + 1));
      }
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    // After the barrier this covers what the other threads wrote. Pairs with the fence of `await_flag`.
    ptx::fence_sys();
    store_packet(peer() + Mailbox::flag(parity), packet(tag, Mailbox::flag(parity)));
  }

  __device__ void await_packets(uint32_t tag) {
    const uint32_t word = Mailbox::packets(epoch_parity(tag), lane());
    const Packet expected = packet(tag, word);
    for (uint32_t polls = 1;; ++polls) {
      const Packet found = load_packet(own() + word);
      if (!whole(tag, word, found) || same(found, expected)) return;
      if (polls % kPollsPerCheck == 0 && late()) return fail(TRELLINK_LINK_NO_PACKET, word, expected, found);
    }
  }

  // Whether this is a packet of this round or an earlier one, or nothing yet.
  __device__ bool whole(uint32_t tag, uint32_t word, const Packet& found) {
    if (found.low == 0 && found.high == 0) return true;
    const uint32_t seen = found.tag();
    if (same(found, packet(seen, word)) && static_cast<int32_t>(seen - tag) <= 0) return true;
    fail(TRELLINK_LINK_TORN_PACKET, word, packet(seen, word), found);
    return false;
  }

  __device__ void await_flag(uint32_t tag) {
    const uint32_t word = Mailbox::flag(epoch_parity(tag));
    const Packet expected = packet(tag, word);
    for (uint32_t polls = 1;; ++polls) {
      const Packet found = load_packet(own() + word);
      if (same(found, expected)) break;
      if (polls % kPollsPerCheck == 0 && late()) return fail(TRELLINK_LINK_NO_FLAG, word, expected, found);
    }
    ptx::fence_sys();
  }

  __device__ void check_words(uint32_t tag, bool loads) {
    const uint32_t word = Mailbox::words(epoch_parity(tag), lane());
    compare(TRELLINK_LINK_STALE_DATA, tag, word, ptx::ld_relaxed_sys_b128(own() + word));
    if (!loads) return;
    const uint32_t shown = Mailbox::exhibit(lane());
    compare(TRELLINK_LINK_WRONG_LOAD, tag, shown, ptx::ld_relaxed_sys_b128(peer() + shown));
  }

  __device__ void compare(uint32_t state, uint32_t tag, uint32_t word, ulonglong2 found) {
    if (found.x != plain(tag, word)) return fail(state, word, plain(tag, word), found.x);
    if (found.y != plain(tag, word + 1)) fail(state, word + 1, plain(tag, word + 1), found.y);
  }

  __device__ bool late() const { return static_cast<int64_t>(ptx::globaltimer_ns() - deadline_ns_) >= 0; }

  __device__ void fail(uint32_t state, uint32_t word, uint64_t expected, uint64_t found) {
    if (finding_.good()) finding_ = {state, word, expected, found};
  }

  // The same of packets: the half that is not as it should be.
  __device__ void fail(uint32_t state, uint32_t word, const Packet& expected, const Packet& found) {
    if (expected.low != found.low) return fail(state, word, expected.low, found.low);
    fail(state, word + 1, expected.high, found.high);
  }

  // Leaves the verdict.
  __device__ void conclude(uint32_t round, uint64_t elapsed_ns) const {
    __shared__ Finding findings[TRELLINK_LINK_PROBE_THREADS];
    findings[threadIdx.x] = finding_;
    __syncthreads();
    if (threadIdx.x != 0) return;
    Finding worst = findings[0];
    for (uint32_t i = 1; i < TRELLINK_LINK_PROBE_THREADS; ++i) {
      if (findings[i].explains(worst)) worst = findings[i];
    }
    auto* out = reinterpret_cast<TrellinkLinkVerdict*>(params_.verdict);
    out->round = round;
    out->word = worst.word;
    out->expected = worst.expected;
    out->found = worst.found;
    out->elapsed_ns = elapsed_ns;
    ptx::fence_sys();
    ptx::st_relaxed_sys(&out->state, worst.state);
  }

  const TrellinkLinkProbe& params_;
  const uint64_t deadline_ns_;
  Finding finding_{TRELLINK_LINK_GOOD, 0, 0, 0};
};

}  // namespace trellink
