// Runs the kernels of csrc/kernels: a CTA is an OS thread, its CUDA threads are fibers.
//
// A fiber runs until it synchronises or polls; then the next lane of its warp does. A warp runs until
// all of it is at a barrier, polls or has ended; then the next warp does, in an order that is drawn
// anew each time. So one warp is as far ahead of the others as barriers allow, and a barrier that is
// missing shows. The draws follow from TRELLINK_SIM_SEED, the launch and the
// block. Now and then a CTA is held up at the end of a call, so that peers are in the next one.
//
// Accesses to memory that devices share go through `link_faults.h`, where a test can make a link lie.
//
// A CTA in which every fiber waits for others that can no longer come (a warp operation in divergent
// code, a barrier that not all threads reach) is a bug in the kernel: the process is stopped with a
// message. An access behind shared memory or behind a buffer ends in a segmentation fault.

#include "kernels/all_reduce.cu"
#include "kernels/decode.cu"
#include "kernels/linear_bytes_4.cu"
#include "kernels/linear_wide_8.cu"
#include "kernels/linear_formed_4.cu"
#include "kernels/link_probe.cu"
#include "link_faults.h"
#include "kernels/linear_wide_16.cu"
#include "kernels/linear_wide_32.cu"
#include "kernels/linear_wide_64.cu"
#include "kernels/transform.cu"

#include <sched.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

namespace sim {

thread_local Place place;

namespace {

// Of the launches of this thread, and of the CTA that it is.
thread_local uint32_t chosen_faults = 0;

constexpr size_t kStackBytes = 128 * 1024;

// Memory that ends, but for what is missing to 16 bytes, where an unmapped page begins.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    used_ = (bytes + 15) / 16 * 16;
    mapped_ = (used_ + page_ - 1) / page_ * page_ + page_;
    void* map = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) fail("out of memory");
    map_ = static_cast<unsigned char*>(map);
    if (mprotect(map_ + mapped_ - page_, page_, PROT_NONE) != 0) fail("no guard page");
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(map_, mapped_); }
  unsigned char* begin() const { return map_ + mapped_ - page_ - used_; }
  size_t size() const { return used_; }

 private:
  size_t page_, used_, mapped_;
  unsigned char* map_;
};

struct Warp {
  uint32_t words[2][32][8];
  Op op;
  uint32_t arrived = 0;
  uint64_t completed = 0;
};

struct Fiber {
  uint32_t copied_bytes = 0;  // that are still to come
  jmp_buf resume;
  bool begun = false;
  bool polled = false;                  // in this turn of its warp
  uint64_t exchanges = 0;             // warp operations this lane has begun
  const uint64_t* waits_for = nullptr;  // a counter that has to exceed `value`
  uint64_t value = 0;
  uint64_t cluster_meets_at = 0;  // arrivals of the cluster for which the fiber waits
  bool done = false;
};

class Cta;

// CTAs that meet and see each other's shared memory.
struct Cluster {
  std::vector<Cta*> ctas;
  std::atomic<uint64_t> arrived{0};
};

class Cta {
 public:
  Cta(uint32_t block, uint32_t grid, uint32_t threads, uint32_t shared_bytes, std::function<void()> kernel)
      : fibers_(threads),
        warps_(threads / 32),
        kernel_(std::move(kernel)),
        stacks_(threads * kStackBytes),
        shared_(shared_bytes),
        random_(seed() + block) {
    place_ = {{0}, {block}, {threads}, {grid}};
    // Shared memory begins undefined. These bytes are NaN in fp16 and f32, so that a use shows.
    std::memset(shared_.begin(), 0xff, shared_.size());
  }

  void run();
  void sync_threads();
  LaneWords warp_exchange(Op op, const uint32_t* words, uint32_t count);
  void poll() {
    fibers_[current_].polled = true;
    yield();
  }
  void hold_up() {
    if (random_() % 4 == 0) usleep(4000);
  }
  unsigned char* shared() { return shared_.begin(); }
  void start_copy(const Copy& copy) {
    if (random_() % 2) {
      perform(copy);
    } else {
      copies_.push_back(copy);
    }
  }
  uint32_t* own_counter() { return &fibers_[current_].copied_bytes; }
  void finish_copies(const uint32_t* counter) {
    for (size_t i = 0; i < copies_.size();) {
      if (copies_[i].counter != counter) {
        ++i;
        continue;
      }
      perform(copies_[i]);
      copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  void join(Cluster& cluster, uint32_t rank) {
    cluster_ = &cluster;
    cluster_rank_ = rank;
    cluster.ctas[rank] = this;
  }
  uint32_t cluster_rank() const { return cluster_rank_; }
  void cluster_arrive() {
    const uint64_t all = cluster_->ctas.size() * fibers_.size();
    fibers_[current_].cluster_meets_at = (cluster_->arrived++ / all + 1) * all;
  }
  void cluster_wait() {
    while (cluster_->arrived < fibers_[current_].cluster_meets_at) poll();
  }
  const void* shared_of_rank(const void* shared, uint32_t rank) const {
    const auto* p = static_cast<const unsigned char*>(shared);
    const Cta& other = *cluster_->ctas[rank];
    const bool is_dynamic = p >= shared_.begin() && p < shared_.begin() + shared_.size();
    return is_dynamic ? other.shared_.begin() + (p - shared_.begin()) : other.statics_ + (p - statics_);
  }

  static thread_local Cta* running;

 private:
  static uint64_t seed() {
    const char* seed = std::getenv("TRELLINK_SIM_SEED");
    static std::atomic<uint64_t> ctas{0};
    return (seed ? std::strtoull(seed, nullptr, 10) << 32 : 0) + (ctas++ << 8);
  }
  // Jumps spare the system call that swapcontext makes for the signal mask.
  void yield() {
    if (_setjmp(fibers_[current_].resume) == 0) _longjmp(scheduler_, 1);
  }
  static void perform(const Copy& copy) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    *copy.counter -= copy.bytes;
  }
  void resume();
  bool run_warp(uint32_t warp);
  static void enter() {
    running->kernel_();
    running->fibers_[running->current_].done = true;
    running->yield();
  }
  void wait(const uint64_t& counter, uint64_t value) {
    fibers_[current_].waits_for = &counter;
    fibers_[current_].value = value;
    yield();
  }

  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::function<void()> kernel_;
  Guarded stacks_;
  Guarded shared_;
  std::mt19937_64 random_;
  Place place_;
  jmp_buf scheduler_;
  uint32_t current_ = 0;
  uint32_t at_barrier_ = 0;
  uint64_t barriers_ = 0;
  std::vector<Copy> copies_;  // that have been put off
  Cluster* cluster_ = nullptr;
  uint32_t cluster_rank_ = 0;
  // A variable of the thread. Every other one, static shared memory among them, is as far from it in every thread.
  const unsigned char* statics_ = nullptr;
};

thread_local Cta* Cta::running = nullptr;

// Lets the current fiber run until it yields.
void Cta::resume() {
  Fiber& fiber = fibers_[current_];
  place = place_;
  place.thread.x = current_;
  if (_setjmp(scheduler_) != 0) return;
  if (fiber.begun) _longjmp(fiber.resume, 1);
  fiber.begun = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack = {stacks_.begin() + current_ * kStackBytes, 0, kStackBytes};
  context.uc_link = nullptr;
  makecontext(&context, &Cta::enter, 0);
  setcontext(&context);
}

// Lets a warp run as far as it comes without the others; false if that is nowhere.
bool Cta::run_warp(uint32_t warp) {
  const uint32_t first_lane = random_() % 32;
  bool ran = false;
  for (uint32_t i = 0; i < 32; ++i) fibers_[warp * 32 + i].polled = false;
  for (bool progress = true; progress;) {
    progress = false;
    for (uint32_t i = 0; i < 32; ++i) {
      current_ = warp * 32 + (first_lane ^ i);
      Fiber& fiber = fibers_[current_];
      if (fiber.done || fiber.polled || (fiber.waits_for && *fiber.waits_for <= fiber.value)) continue;
      fiber.waits_for = nullptr;
      resume();
      progress = ran = true;
    }
  }
  return ran;
}

void Cta::run() {
  running = this;
  statics_ = reinterpret_cast<const unsigned char*>(&place);
  std::vector<uint32_t> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto live = [&] { return std::any_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return !f.done; }); };
  while (live()) {
    std::shuffle(order.begin(), order.end(), random_);
    bool progress = false;
    for (const uint32_t warp : order) progress |= run_warp(warp);
    if (!progress) fail("all threads of a CTA wait for each other: divergent warp operation or barrier");
    // Other CTAs may be what pollers wait for. If nobody polls, a busy machine would only take the CPU away.
    if (std::any_of(fibers_.begin(), fibers_.end(), [](const Fiber& f) { return f.polled; })) sched_yield();
  }
  if (at_barrier_ != 0) fail("threads left a CTA while others were at a barrier");
}

void Cta::sync_threads() {
  const uint64_t generation = barriers_;
  if (++at_barrier_ == fibers_.size()) {
    at_barrier_ = 0;
    ++barriers_;
  } else {
    wait(barriers_, generation);
  }
}

LaneWords Cta::warp_exchange(Op op, const uint32_t* words, uint32_t count) {
  Warp& warp = warps_[current_ / 32];
  const uint64_t sequence = fibers_[current_].exchanges++;
  if (warp.arrived > 0 && warp.op != op) fail("lanes of a warp met in different operations");
  warp.op = op;
  auto& buffer = warp.words[sequence % 2];
  std::copy(words, words + count, buffer[current_ % 32]);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    ++warp.completed;
  } else {
    wait(warp.completed, sequence);
  }
  return buffer;
}

// Groups of `cluster` neighbouring CTAs are clusters.
void launch(uint32_t grid, uint32_t cluster, uint32_t threads, uint32_t shared_bytes,
            const std::function<void()>& kernel) {
  if (grid % cluster != 0) fail("a grid that is no multiple of its clusters");
  std::vector<Cluster> clusters(grid / cluster);
  std::vector<std::unique_ptr<Cta>> ctas;
  for (uint32_t block = 0; block < grid; ++block) {
    clusters[block / cluster].ctas.resize(cluster);
    ctas.push_back(std::make_unique<Cta>(block, grid, threads, shared_bytes, kernel));
    ctas.back()->join(clusters[block / cluster], block % cluster);
  }
  std::vector<std::thread> running;
  for (auto& cta : ctas) {
    running.emplace_back([&cta, faults = chosen_faults] {
      chosen_faults = faults;
      cta->run();
    });
  }
  for (auto& thread : running) thread.join();
}

}  // namespace

void fail(const char* what) {
  std::fprintf(stderr, "trellink-sim: %s\n", what);
  std::abort();
}
void sync_threads() { Cta::running->sync_threads(); }
LaneWords warp_exchange(Op op, const uint32_t* words, uint32_t count) {
  return Cta::running->warp_exchange(op, words, count);
}
void poll() { Cta::running->poll(); }
void hold_up() { Cta::running->hold_up(); }
unsigned char* dynamic_shared() { return Cta::running->shared(); }
void start_copy(const Copy& copy) { Cta::running->start_copy(copy); }
void finish_copies(const uint32_t* counter) { Cta::running->finish_copies(counter); }
uint32_t cluster_rank() { return Cta::running->cluster_rank(); }
void cluster_arrive() { Cta::running->cluster_arrive(); }
void cluster_wait() { Cta::running->cluster_wait(); }
const void* shared_of_rank(const void* shared, uint32_t rank) { return Cta::running->shared_of_rank(shared, rank); }
uint32_t faults() { return chosen_faults; }
uint32_t* own_counter() { return Cta::running->own_counter(); }
void store_shared(uint64_t* p, uint64_t x, uint64_t y) { link_faults().store(p, x, y); }
ulonglong2 load_shared(const uint64_t* p) { return link_faults().load(p); }

}  // namespace sim

// The faults of all further launches of the calling thread.
extern "C" void trellink_sim_choose_faults(uint32_t faults) { sim::chosen_faults = faults; }

namespace {

// As src/cuda/kernels.rs chooses.
bool has_row_epilogue(const TrellinkLinear& params) { return params.norm.out || params.norm.squares; }

// A straight kernel, once its format is known.
template <class Arithmetic, trellink::Epilogues kEpilogues>
struct RunStraight {
  const TrellinkLinear& params;
  template <trellink::Codebook kCodebook, int kHalfBits>
  void run() const {
    trellink::linear<trellink::Straight<Arithmetic, kCodebook, kHalfBits>, kEpilogues>(params);
  }
};

template <class Arithmetic, trellink::Epilogues kEpilogues>
void run_straight_as(const TrellinkLinear& params) {
  const TrellinkSegment& segment = params.segment[0];
  const RunStraight<Arithmetic, kEpilogues> run{params};
  if constexpr (std::is_same_v<Arithmetic, trellink::Bytes>) {
    trellink::Dispatch<trellink::Codebook::kMul1>::run(segment.codebook, segment.half_bits, run);
  } else if (segment.codebook == static_cast<uint32_t>(trellink::Codebook::kMcg)) {
    run.template run<trellink::Codebook::kMcg, 8>();
  } else {
    run.template run<trellink::Codebook::kMul1, 8>();
  }
}

template <class Arithmetic>
void run_straight(const TrellinkLinear& params) {
  if (has_row_epilogue(params)) {
    run_straight_as<Arithmetic, trellink::Epilogues::kRow>(params);
  } else {
    run_straight_as<Arithmetic, trellink::Epilogues::kPlain>(params);
  }
}

}  // namespace

// Runs one launch of a linear kernel, by its number in src/plan.rs, to its end. `straight`: of the kernel for the
// segment's format.
extern "C" void trellink_sim_linear(const TrellinkLinear* params, uint32_t kernel, bool straight, uint32_t grid) {
  const bool row = has_row_epilogue(*params), column = params->columns.squares || params->columns.gated;
  static constexpr void (*kKernels[][3])(const TrellinkLinear) = {
      {trellink_linear_bytes_4, trellink_linear_bytes_4_row, trellink_linear_bytes_4_column},
      {trellink_linear_formed_4, trellink_linear_formed_4_row, trellink_linear_formed_4_column},
      {trellink_linear_wide_8, trellink_linear_wide_8_row, trellink_linear_wide_8_column},
      {trellink_linear_wide_16, trellink_linear_wide_16_row, trellink_linear_wide_16_column},
      {trellink_linear_wide_32, trellink_linear_wide_32_row, trellink_linear_wide_32_column},
      {trellink_linear_wide_64, trellink_linear_wide_64_row, trellink_linear_wide_64_column},
  };
  static constexpr void (*kStraight[])(const TrellinkLinear&) = {
      run_straight<trellink::Bytes>,   run_straight<trellink::FormedPairs>, run_straight<trellink::Wide<1>>,
      run_straight<trellink::Wide<2>>, run_straight<trellink::Wide<4>>,     run_straight<trellink::Wide<8>>};
  if (straight) {
    const auto run = kStraight[kernel];
    sim::launch(grid, params->k_splits, TRELLINK_LINEAR_THREADS, params->shared_bytes, [=] { run(*params); });
    return;
  }
  const auto run = kKernels[kernel][row ? 1 : column ? 2 : 0];
  sim::launch(grid, params->k_splits, TRELLINK_LINEAR_THREADS, params->shared_bytes, [=] { run(*params); });
}

// Tokens that a pass may have.
extern "C" uint32_t trellink_sim_most_tokens() { return TRELLINK_WGMMA ? 64 : 32; }

// Whether inputs that were transformed ahead come in rings.
extern "C" bool trellink_sim_rings() { return TRELLINK_RINGS; }

// Runs one launch of the transform kernel for passes of so many tokens to its end.
extern "C" void trellink_sim_transform(const TrellinkTransform* params, uint32_t tokens, bool bf16, uint32_t grid) {
  const auto of = [=](auto* f16_kernel, auto* bf16_kernel) { return bf16 ? bf16_kernel : f16_kernel; };
  const auto run = tokens == 8    ? of(trellink_transform_8_f16, trellink_transform_8_bf16)
                   : tokens == 16 ? of(trellink_transform_16_f16, trellink_transform_16_bf16)
                   : tokens == 32 ? of(trellink_transform_32_f16, trellink_transform_32_bf16)
                                  : of(trellink_transform_64_f16, trellink_transform_64_bf16);
  sim::launch(grid, 1, TRELLINK_TRANSFORM_THREADS, 0, [=] { run(*params); });
}

// Runs one launch of the decode kernel to its end.
extern "C" void trellink_sim_decode(const TrellinkDecode* params, uint32_t grid) {
  sim::launch(grid, 1, 128, 0, [=] { trellink_decode(*params); });
}

// Runs one launch of the all-reduce kernel to its end.
extern "C" void trellink_sim_all_reduce(const TrellinkAllReduce* params, uint32_t grid, uint32_t threads) {
  sim::launch(grid, 1, threads, 0, [=] { trellink_all_reduce(*params); });
}

// Runs one side of a link's probe to its end.
extern "C" void trellink_sim_link_probe(const TrellinkLinkProbe* params) {
  sim::launch(1, 1, TRELLINK_LINK_PROBE_THREADS, 0, [=] { trellink_link_probe(*params); });
}

// Makes one access to [begin, end) go wrong; until it is mended. Several ranges must not overlap.
extern "C" void trellink_sim_break_link(uint64_t begin, uint64_t end, uint32_t lie, uint64_t access) {
  sim::link_faults().add({begin, end, static_cast<sim::Lie>(lie), access});
}
extern "C" void trellink_sim_mend_link(uint64_t begin) { sim::link_faults().remove(begin); }

// An access of 16 bytes, as kernels make them.
extern "C" void trellink_sim_store_shared(uint64_t* p, uint64_t x, uint64_t y) { sim::store_shared(p, x, y); }
extern "C" void trellink_sim_load_shared(const uint64_t* p, uint64_t* x, uint64_t* y) {
  const ulonglong2 pair = sim::load_shared(p);
  *x = pair.x;
  *y = pair.y;
}

// Memory of a device: 16-byte aligned, zero, and unmapped behind its end.
extern "C" void* trellink_sim_allocate(uint64_t bytes, void** memory) {
  auto* guarded = new sim::Guarded(bytes);
  *memory = guarded->begin();
  return guarded;
}
extern "C" void trellink_sim_free(void* allocation) { delete static_cast<sim::Guarded*>(allocation); }
