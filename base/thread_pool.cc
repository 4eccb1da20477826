#include "base/thread_pool.h"

#include <algorithm>

#include "base/processors.h"

namespace fovea {
namespace {

// A loop of a single-token step takes tens of microseconds and the next one follows at once, or
// after some tens more that one thread works alone; spinning for that long saves two context
// switches a loop, which cost a virtual machine more than a real one. About 0.2 ms; longer would
// burn a core that others need, as would threads that have none of their own.
constexpr int kSpins = 20000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename T>
void WaitWhileEqual(const std::atomic<T>& value, T old, int n_spins) {
  for (int i = 0; i < n_spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) : n_spins_(n_threads <= NumProcessors() ? kSpins : 0) {
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunLoop(int thread) {
  const Loop loop = loop_;
  while (true) {
    const int64_t begin = next_.fetch_add(loop.grain, std::memory_order_relaxed);
    if (begin >= loop.n) return;
    (*loop.body)(begin, std::min(begin + loop.grain, loop.n), thread);
  }
}

void ThreadPool::Work(int thread) {
  uint32_t seen = 0;
  while (true) {
    WaitWhileEqual(epoch_, seen, n_spins_);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) return;
    // A loop that ended before this thread woke has no members any more; the next one may be open
    // already, and is joined as well.
    uint32_t members = members_.load(std::memory_order_relaxed);
    while ((members & kOpen) != 0) {
      // Acquires what ParallelFor wrote before it opened the loop.
      if (members_.compare_exchange_weak(members, members + 1, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
        RunLoop(thread);
        // Releases what the loop wrote. The last to leave a closed loop wakes its caller.
        if (members_.fetch_sub(1, std::memory_order_acq_rel) == 1) members_.notify_all();
        break;
      }
    }
  }
}

void ThreadPool::ParallelFor(int64_t n, int64_t grain,
                             absl::FunctionRef<void(int64_t, int64_t, int)> body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || n <= grain || busy_.exchange(true, std::memory_order_acquire)) {
    for (int64_t begin = 0; begin < n; begin += grain) body(begin, std::min(begin + grain, n), 0);
    return;
  }
  // Nobody reads these while the loop is not open.
  loop_ = {n, grain, &body};
  next_.store(0, std::memory_order_relaxed);
  members_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  epoch_.notify_all();
  RunLoop(0);
  // Those who joined must leave before `body` dies; those who have not woken yet find it closed.
  uint32_t members = members_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while (members != 0) {
    WaitWhileEqual(members_, members, n_spins_);
    members = members_.load(std::memory_order_acquire);
  }
  busy_.store(false, std::memory_order_release);
}

}  // namespace fovea
