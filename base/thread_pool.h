// A fixed team of threads for data-parallel loops. Libraries with teams of their own (oneDNN,
// FAISS) are called single-threaded from inside these loops, so that cores are not fought over.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace fovea {

class ThreadPool {
 public:
  // `n_threads` counts the calling thread: 1 means that loops run inline. At least 1. More than
  // there are processors for gain nothing, and cost the switches between them.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) on disjoint ranges that cover [0, n), each of `grain` items
  // (the last one shorter), and returns when all are done. Threads that do not get a processor in
  // time are not waited for: the others do their share. `thread` is in [0, n_threads()) and
  // no two concurrent calls of one loop share it: an index into per-thread workspaces.
  // Thread-safe: a loop that starts while another one runs (also one nested in it) runs inline,
  // on its caller, as thread 0 of its own loop.
  void ParallelFor(int64_t n, int64_t grain,
                   absl::FunctionRef<void(int64_t begin, int64_t end, int thread)> body);

 private:
  struct Loop {
    int64_t n = 0;
    int64_t grain = 1;
    const absl::FunctionRef<void(int64_t, int64_t, int)>* body = nullptr;
  };
  // In members_: workers may join the loop.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;

  void Work(int thread);
  void RunLoop(int thread);

  const int n_spins_;
  std::vector<std::thread> workers_;
  std::atomic<bool> busy_{false};     // a loop is running
  Loop loop_;                         // the loop that is open, or was
  std::atomic<int64_t> next_{0};      // its first item that nobody has taken
  std::atomic<uint32_t> members_{0};  // workers in the loop, and kOpen
  std::atomic<uint32_t> epoch_{0};    // one more for each loop; workers wait for it to change
  std::atomic<bool> stop_{false};
};

}  // namespace fovea
