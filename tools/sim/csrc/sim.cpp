// Runs the kernels of csrc/kernels: a CTA is an OS thread, its CUDA threads are fibers.
//
// A fiber runs until it synchronises or polls; then the next one does. A CTA in which every fiber
// waits for others that can no longer come (a warp operation in divergent code, a barrier that not
// all threads reach) is a bug in the kernel: the process is stopped with a message.

#include "kernels/decode.cu"
#include "kernels/linear_32.cu"
#include "kernels/linear_8.cu"

#include <sched.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace sim {

thread_local Place place;

namespace {

constexpr size_t kStackBytes = 128 * 1024;

struct Warp {
  uint32_t words[2][32][8];
  Op op;
  uint32_t arrived = 0;
  uint64_t completed = 0;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;
  uint64_t exchanges = 0;             // warp operations this lane has begun
  const uint64_t* waits_for = nullptr;  // a counter that has to exceed `value`
  uint64_t value = 0;
  bool done = false;
};

class Cta {
 public:
  Cta(uint32_t block, uint32_t grid, uint32_t threads, uint32_t shared_bytes, std::function<void()> kernel)
      : fibers_(threads), warps_(threads / 32), kernel_(std::move(kernel)), shared_(shared_bytes / 16 + 1) {
    place_ = {{0}, {block}, {threads}, {grid}};
    // Shared memory begins undefined. These bytes are NaN in fp16 and f32, so that a use shows.
    std::memset(shared_.data(), 0xff, shared_.size() * 16);
  }

  void run();
  void sync_threads();
  LaneWords warp_exchange(Op op, const uint32_t* words, uint32_t count);
  void yield() { swapcontext(&fibers_[current_].context, &scheduler_); }
  unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()); }

  static thread_local Cta* running;

 private:
  struct alignas(16) Chunk { unsigned char bytes[16]; };

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
  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "trellink-sim: %s\n", what);
    std::abort();
  }

  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::function<void()> kernel_;
  std::vector<Chunk> shared_;
  Place place_;
  ucontext_t scheduler_;
  uint32_t current_ = 0;
  uint32_t at_barrier_ = 0;
  uint64_t barriers_ = 0;
};

thread_local Cta* Cta::running = nullptr;

void Cta::run() {
  running = this;
  for (auto& fiber : fibers_) {
    fiber.stack.reset(new unsigned char[kStackBytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, kStackBytes};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Cta::enter, 0);
  }
  for (size_t live = fibers_.size(); live > 0;) {
    bool progress = false;
    live = 0;
    for (current_ = 0; current_ < fibers_.size(); ++current_) {
      Fiber& fiber = fibers_[current_];
      if (fiber.done) continue;
      ++live;
      if (fiber.waits_for && *fiber.waits_for <= fiber.value) continue;
      fiber.waits_for = nullptr;
      progress = true;
      place = place_;
      place.thread.x = current_;
      swapcontext(&scheduler_, &fiber.context);
    }
    if (live > 0 && !progress) fail("all threads of a CTA wait for each other: divergent warp operation or barrier");
    // Other CTAs may be what the pollers wait for.
    sched_yield();
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

void launch(uint32_t grid, uint32_t threads, uint32_t shared_bytes, const std::function<void()>& kernel) {
  std::vector<std::thread> ctas;
  for (uint32_t block = 0; block < grid; ++block) {
    ctas.emplace_back([=, &kernel] { Cta(block, grid, threads, shared_bytes, kernel).run(); });
  }
  for (auto& cta : ctas) cta.join();
}

}  // namespace

void sync_threads() { Cta::running->sync_threads(); }
LaneWords warp_exchange(Op op, const uint32_t* words, uint32_t count) {
  return Cta::running->warp_exchange(op, words, count);
}
void poll() { Cta::running->yield(); }
unsigned char* dynamic_shared() { return Cta::running->shared(); }

}  // namespace sim

// Runs one launch of a linear kernel to its end. pass: 8 or 32 tokens.
extern "C" void trellink_sim_linear(const TrellinkLinear* params, uint32_t pass, uint32_t grid) {
  sim::launch(grid, TRELLINK_LINEAR_THREADS, params->shared_bytes, [=] {
    pass == 8 ? trellink_linear_8(*params) : trellink_linear_32(*params);
  });
}

// Runs one launch of the decode kernel to its end.
extern "C" void trellink_sim_decode(const TrellinkDecode* params, uint32_t grid) {
  sim::launch(grid, 128, 0, [=] { trellink_decode(*params); });
}
