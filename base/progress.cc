#include "base/progress.h"

namespace fovea {

absl::Status Progress::Report(const ProgressUpdate& update) const {
  if (callback_) callback_(update);
  return CheckCancelled();
}

absl::Status Progress::CheckCancelled() const {
  if (cancelled_ != nullptr && cancelled_->load(std::memory_order_relaxed)) {
    return absl::CancelledError("interrupted");
  }
  return absl::OkStatus();
}

}  // namespace fovea
