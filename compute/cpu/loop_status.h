// The first error of a parallel loop.
#pragma once

#include <atomic>
#include <mutex>

#include "base/status.h"

namespace fovea::compute::cpu {

// Thread-safe.
class LoopStatus {
 public:
  bool ok() const { return ok_.load(std::memory_order_relaxed); }
  void Update(const absl::Status& status) {
    if (status.ok()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status_.ok()) status_ = status;
    ok_.store(false, std::memory_order_relaxed);
  }
  // After the loop.
  const absl::Status& status() const { return status_; }

 private:
  std::atomic<bool> ok_{true};
  std::mutex mutex_;
  absl::Status status_;
};

}  // namespace fovea::compute::cpu
