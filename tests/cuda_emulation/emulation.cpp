#include "emulation.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else  // nobody has to be told that the stack changes
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace emulation {
namespace {

constexpr size_t kStack = 64 << 10;
constexpr size_t kLargestExchange = 16;

enum class State { kReady, kWarp, kExchange, kBlock, kLeft };

// Where a thread of control was left.
struct Context {
  ucontext_t whole;
  jmp_buf jump;
  bool fresh = true;  // never run: only `whole` is set
};

// Goes on at `to`, until something goes on at `from`.
void go(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)  // which takes a long jump for one within the stack
  swapcontext(&from.whole, &to.whole);
#else  // swapcontext asks the kernel for the signal mask, twice
  from.fresh = false;
  if (_setjmp(from.jump) != 0) return;
  if (!to.fresh) _longjmp(to.jump, 1);
  setcontext(&to.whole);
#endif
}

struct Fiber {
  Context context;
  char* stack = nullptr;
  void* sanitizer = nullptr;
  State state = State::kReady;
  int line = 0;                           // where it waits
  int turn = 0;                           // lanes may give for the next exchange before all have got from this one
  alignas(16) char given[2][kLargestExchange];
};

// One launch at a time: blocks, one after the other.
struct Machine {
  std::mutex busy;
  std::vector<Fiber> fibers;
  Context scheduler;
  const void* stack = nullptr;  // the scheduler's
  size_t stack_size = 0;
  void* sanitizer = nullptr;
  const std::function<void()>* kernel = nullptr;
  unsigned current = 0;
  dim3 block, threads, blocks;
  long epoch = 0;
  std::map<const void*, long> seen;  // array of shared memory -> block that has used it
  std::mt19937 random{1};
  long launches = 0;
  bool levels_on_host = true;
};

Machine& machine() {
  static Machine* const one = new Machine;  // never destroyed: threads may outlive the program's statics
  return *one;
}

[[noreturn]] void fail(const char* why) {
  std::fprintf(stderr, "CUDA emulation: %s\n", why);
  std::abort();
}

void run_fiber() {
  Machine& m = machine();
  __sanitizer_finish_switch_fiber(nullptr, &m.stack, &m.stack_size);
  (*m.kernel)();
  m.fibers[m.current].state = State::kLeft;
  __sanitizer_start_switch_fiber(nullptr, m.stack, m.stack_size);
  go(m.fibers[m.current].context, m.scheduler);
}

void wait(State state, int line) {
  Machine& m = machine();
  Fiber& fiber = m.fibers[m.current];
  fiber.state = state, fiber.line = line;
  __sanitizer_start_switch_fiber(&fiber.sanitizer, m.stack, m.stack_size);
  go(fiber.context, m.scheduler);
  __sanitizer_finish_switch_fiber(fiber.sanitizer, &m.stack, &m.stack_size);
}

void resume(Fiber& fiber) {
  Machine& m = machine();
  __sanitizer_start_switch_fiber(&m.sanitizer, fiber.stack, kStack);
  go(m.scheduler, fiber.context);
  __sanitizer_finish_switch_fiber(m.sanitizer, nullptr, nullptr);
}

void start(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) fail("there is no memory for the threads of a block");
    fiber.stack = static_cast<char*>(stack);
    getcontext(&fiber.context.whole);
  }
  ucontext_t& context = fiber.context.whole;
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, run_fiber, 0);
  fiber.context.fresh = true;
  fiber.state = State::kReady, fiber.turn = 0, fiber.sanitizer = nullptr;
}

// Lets fibers [first, last) go on if all of them wait, for `state` being what they may wait for together.
bool release(unsigned first, unsigned last, bool whole_block, std::vector<unsigned>& ready) {
  std::vector<Fiber>& fibers = machine().fibers;
  bool some_left = false, some_wait = false;
  for (unsigned i = first; i < last; ++i) {
    const State state = fibers[i].state;
    if (state == State::kReady) return false;
    if (whole_block && (state == State::kWarp || state == State::kExchange)) return false;
    (state == State::kLeft ? some_left : some_wait) = true;
  }
  if (!some_wait) return false;
  if (some_left) fail("a thread has left the kernel for which others wait");
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state != fibers[first].state || fibers[i].line != fibers[first].line) {
      fail("threads wait for each other at different lines");
    }
  }
  if (!whole_block && fibers[first].state == State::kBlock) return false;  // the rest of the block is still to come
  for (unsigned i = first; i < last; ++i) {
    fibers[i].state = State::kReady;
    ready.push_back(i);
  }
  return true;
}

void run_block(unsigned threads) {
  Machine& m = machine();
  ++m.epoch;
  std::vector<unsigned> ready;
  for (unsigned i = 0; i < threads; ++i) {
    start(m.fibers[i]);
    ready.push_back(i);
  }
  while (!ready.empty()) {
    std::swap(ready[m.random() % ready.size()], ready.back());
    m.current = ready.back();
    ready.pop_back();
    resume(m.fibers[m.current]);
    const unsigned warp = m.current / kWarp * kWarp;
    if (!release(warp, warp + kWarp, false, ready)) release(0, threads, true, ready);
  }
  for (unsigned i = 0; i < threads; ++i) {
    if (m.fibers[i].state != State::kLeft) fail("threads wait for each other without end");
  }
}

void require_full(unsigned mask) {
  if (mask != kFullMask) fail("only whole warps are emulated");
}

}  // namespace

void launch(dim3 blocks, dim3 threads, size_t shared, cudaStream_t, const std::function<void()>& kernel) {
  Machine& m = machine();
  const std::lock_guard<std::mutex> alone(m.busy);
  if (blocks.x == 0 || blocks.x > 0x7fffffffu || blocks.y == 0 || blocks.y > 0xffff || blocks.z != 1 ||
      threads.x == 0 || threads.x > 1024 || threads.y != 1 || threads.z != 1 || shared != 0) {
    fail("a GPU would refuse this launch, or it is not emulated");
  }
  if (threads.x % kWarp != 0) fail("the threads of a block are no whole warps");
  ++m.launches;
  m.kernel = &kernel, m.threads = threads, m.blocks = blocks;
  if (m.fibers.size() < threads.x) m.fibers.resize(threads.x);
  std::vector<uint64_t> order(static_cast<uint64_t>(blocks.x) * blocks.y);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), m.random);
  for (const uint64_t block : order) {
    m.block = dim3(static_cast<unsigned>(block % blocks.x), static_cast<unsigned>(block / blocks.x));
    run_block(threads.x);
  }
}

void wait_for_warp(unsigned mask, int line) {
  require_full(mask);
  wait(State::kWarp, line);
}

void wait_for_block(int line) { wait(State::kBlock, line); }

void exchange(unsigned mask, int from, const void* given, void* got, size_t size, int line) {
  require_full(mask);
  Machine& m = machine();
  if (size > kLargestExchange || from < 0 || from >= kWarp) fail("an exchange of lanes that is not emulated");
  const unsigned me = m.current;
  const int turn = m.fibers[me].turn;
  m.fibers[me].turn ^= 1;
  std::memcpy(m.fibers[me].given[turn], given, size);
  wait(State::kExchange, line);
  std::memcpy(got, m.fibers[me / kWarp * kWarp + from].given[turn], size);
}

unsigned thread() { return machine().current; }
dim3 block() { return machine().block; }
dim3 threads_of_block() { return machine().threads; }
dim3 blocks_of_grid() { return machine().blocks; }
bool levels_on_host() { return machine().levels_on_host; }

bool first_of_its_block(const void* shared) {
  Machine& m = machine();
  return std::exchange(m.seen[shared], m.epoch) != m.epoch;
}

}  // namespace emulation

// What tests ask and set.
#define DETRBENCH_EXPORT extern "C" __attribute__((visibility("default")))
DETRBENCH_EXPORT long emulation_launches() { return emulation::machine().launches; }
DETRBENCH_EXPORT void emulation_seed(unsigned seed) { emulation::machine().random.seed(seed); }
DETRBENCH_EXPORT void emulation_levels(int on_host) { emulation::machine().levels_on_host = on_host != 0; }
