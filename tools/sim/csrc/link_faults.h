// Links that lie: accesses of 16 bytes to memory that devices share, of which chosen ones go wrong.
//
// An access that is right is one, as on the GPU: nobody sees halves of two stores. Who probes a link would take those for a
// torn packet, also of a round that is over.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_shim.h"

namespace sim {

enum class Lie : uint32_t {
  kDropped,  // a store that never arrives
  kLate,     // one that arrives when stores have that were made after it
  kTorn,     // one whose upper 64 bits arrive before the lower ones
  kMisread,  // a load of which one bit is wrong
};

struct LinkFault {
  uint64_t begin, end;  // addresses
  Lie lie;
  uint64_t access;  // the number of the store, or load, into this range that goes wrong

  bool holds(const uint64_t* p) const {
    const auto address = reinterpret_cast<uint64_t>(p);
    return begin <= address && address < end;
  }
};

class LinkFaults {
 public:
  void add(const LinkFault& fault) {
    const std::lock_guard lock(mutex_);
    faults_.push_back({fault, 0, nullptr, 0, 0});
    count_.store(faults_.size());
  }

  void remove(uint64_t begin) {
    const std::lock_guard lock(mutex_);
    const auto is_it = [=](const State& state) { return state.fault.begin == begin; };
    faults_.erase(std::remove_if(faults_.begin(), faults_.end(), is_it), faults_.end());
    count_.store(faults_.size());
  }

  void store(uint64_t* p, uint64_t x, uint64_t y) {
    if (count_.load(std::memory_order_relaxed) != 0 && goes_wrong(p, x, y)) return;
    write(p, x, y);
  }

  ulonglong2 load(const uint64_t* p) {
    ulonglong2 pair = read(p);
    if (count_.load(std::memory_order_relaxed) != 0 && is_misread(p)) pair.x ^= 1u << 7;
    return pair;
  }

 private:
  // Stores into its range that a late one lets pass: more than the threads of a warp make in two rounds, for
  // a sender may be a round ahead of who still reads.
  static constexpr uint64_t kLateness = 65;

  struct State {
    LinkFault fault;
    uint64_t accesses;
    uint64_t* held;  // where a store is to arrive that is on its way
    uint64_t x, y;
  };

  // What keeps accesses to an address apart. One of many, so that those to others seldom wait.
  class Apart {
   public:
    explicit Apart(const uint64_t* p) : lock_(lock_of(p)) {
      while (lock_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    }
    ~Apart() { lock_.store(false, std::memory_order_release); }
    Apart(const Apart&) = delete;
    Apart& operator=(const Apart&) = delete;

   private:
    static std::atomic<bool>& lock_of(const uint64_t* p) {
      static std::atomic<bool> locks[1024]{};
      return locks[reinterpret_cast<uint64_t>(p) / 16 % 1024];
    }

    std::atomic<bool>& lock_;
  };

  static void write(uint64_t* p, uint64_t x, uint64_t y) {
    const Apart apart(p);
    __atomic_store_n(p, x, __ATOMIC_RELAXED);
    __atomic_store_n(p + 1, y, __ATOMIC_RELAXED);
  }
  static ulonglong2 read(const uint64_t* p) {
    const Apart apart(p);
    return {__atomic_load_n(p, __ATOMIC_RELAXED), __atomic_load_n(p + 1, __ATOMIC_RELAXED)};
  }

  // Whether this store has been dealt with.
  bool goes_wrong(uint64_t* p, uint64_t x, uint64_t y) {
    const std::lock_guard lock(mutex_);
    for (State& state : faults_) {
      const LinkFault& fault = state.fault;
      if (!fault.holds(p) || fault.lie == Lie::kMisread) continue;
      const uint64_t access = state.accesses++;
      if (state.held && access >= fault.access + kLateness) {
        write(state.held, state.x, state.y);
        state.held = nullptr;
      }
      if (access != fault.access) continue;
      if (fault.lie == Lie::kTorn) __atomic_store_n(p + 1, y, __ATOMIC_RELAXED);
      if (fault.lie != Lie::kDropped) {
        state.held = p;
        state.x = x;
        state.y = y;
      }
      return true;
    }
    return false;
  }

  bool is_misread(const uint64_t* p) {
    const std::lock_guard lock(mutex_);
    for (State& state : faults_) {
      if (state.fault.lie == Lie::kMisread && state.fault.holds(p)) return state.accesses++ == state.fault.access;
    }
    return false;
  }

  std::atomic<size_t> count_{0};
  std::mutex mutex_;
  std::vector<State> faults_;
};

inline LinkFaults& link_faults() {
  static LinkFaults faults;
  return faults;
}

}  // namespace sim
