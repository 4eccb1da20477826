// The threads that serve connections: as many as there are connections, up to a limit; more wait,
// and where many wait, the acceptor does (the system's own queue then holds the rest).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "httplib.h"

namespace fovea::serve {

// Thread-safe.
class BoundedTaskQueue final : public httplib::TaskQueue {
 public:
  explicit BoundedTaskQueue(size_t max_threads) : max_threads_(max_threads) {}

  // Newer releases of the library want a bool.
  using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue(nullptr));

  Enqueued enqueue(std::function<void()> task) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tasks_.size() < max_threads_ || is_shut_down_; });
    tasks_.push_back(std::move(task));
    if (n_idle_ < tasks_.size() && threads_.size() < max_threads_) {
      try {
        threads_.emplace_back([this] { Work(); });
      } catch (const std::system_error&) {  // those that there are do it later
      }
    }
    changed_.notify_all();
    return static_cast<Enqueued>(true);
  }

  // What was added is done before it returns.
  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      is_shut_down_ = true;
      changed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++n_idle_;
      changed_.wait(lock, [&] { return !tasks_.empty() || is_shut_down_; });
      --n_idle_;
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      changed_.notify_all();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  const size_t max_threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  size_t n_idle_ = 0;
  bool is_shut_down_ = false;
};

}  // namespace fovea::serve
