#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>

namespace fovea {
namespace {

// A loop of a single-token step takes tens of microseconds and the next one follows at once;
// spinning for about that long saves two context switches a loop. Longer would burn a core that
// others need.
constexpr int kSpins = 4000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename T>
void WaitWhileEqual(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

struct ThreadPool::Loop {
  int64_t n;
  int64_t grain;
  absl::FunctionRef<void(int64_t, int64_t, int)> body;
  std::atomic<int64_t> next{0};
};

ThreadPool::ThreadPool(int n_threads) {
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunLoop(Loop& loop, int thread) {
  while (true) {
    const int64_t begin = loop.next.fetch_add(loop.grain, std::memory_order_relaxed);
    if (begin >= loop.n) return;
    loop.body(begin, std::min(begin + loop.grain, loop.n), thread);
  }
}

void ThreadPool::Work(int thread) {
  uint32_t seen = 0;
  while (true) {
    WaitWhileEqual(epoch_, seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) return;
    RunLoop(*loop_.load(std::memory_order_acquire), thread);
    if (n_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) n_running_.notify_all();
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
  Loop loop{n, grain, body};
  loop_.store(&loop, std::memory_order_release);
  n_running_.store(static_cast<int>(workers_.size()), std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_acq_rel);
  epoch_.notify_all();
  RunLoop(loop, 0);
  // Every worker must have left the loop before it dies with this frame.
  for (int left = n_running_.load(std::memory_order_acquire); left != 0;
       left = n_running_.load(std::memory_order_acquire)) {
    WaitWhileEqual(n_running_, left);
  }
  busy_.store(false, std::memory_order_release);
}

int NumProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace fovea
