// Progress of a long operation, decoupled from how it is shown: work reports, the command line
// draws. Cancellation travels the same way, so that Ctrl-C stops work at a safe point.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"

namespace fovea {

struct ProgressUpdate {
  std::string stage;      // "encode", "index", "verify"
  int64_t done = 0;       // in `unit`s
  int64_t total = 0;      // 0 = unknown
  const char* unit = "";  // "tokens", "bytes", "records"
};

// Given to long operations. Thread-safe. A default-constructed one reports nothing and is never
// cancelled.
class Progress {
 public:
  using Callback = std::function<void(const ProgressUpdate&)>;
  Progress() = default;
  // `cancelled` (may be null) is read at every safe point; set it from a signal handler.
  Progress(Callback callback, const std::atomic<bool>* cancelled)
      : callback_(std::move(callback)), cancelled_(cancelled) {}

  // Reports, and returns CancelledError once cancellation was asked for.
  absl::Status Report(const ProgressUpdate& update) const;
  absl::Status CheckCancelled() const;

 private:
  Callback callback_;
  const std::atomic<bool>* cancelled_ = nullptr;
};

}  // namespace fovea
