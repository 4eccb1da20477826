// The ids of an index's keys in the order in which they were added: runs of consecutive ids, since
// deletions leave gaps between documents.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace fovea::index {

struct IdRun {
  int64_t first_id = 0;
  int64_t n = 0;
  bool operator==(const IdRun&) const = default;
};

// Immutable and thread-safe.
class KeyIds {
 public:
  KeyIds() = default;
  // Runs ascend, do not overlap and hold something.
  explicit KeyIds(std::vector<IdRun> runs) : runs_(std::move(runs)) {
    for (const IdRun& run : runs_) {
      begin_.push_back(n_);
      n_ += run.n;
    }
  }
  const std::vector<IdRun>& runs() const { return runs_; }
  int64_t size() const { return n_; }
  // One more than the largest id, 0 when there is none.
  int64_t end() const { return runs_.empty() ? 0 : runs_.back().first_id + runs_.back().n; }
  // The id of the key that was added as number `position`, which lies in [0, size()).
  int64_t At(int64_t position) const {
    if (runs_.size() == 1) return runs_[0].first_id + position;
    const size_t run = static_cast<size_t>(
        std::upper_bound(begin_.begin(), begin_.end(), position) - begin_.begin() - 1);
    return runs_[run].first_id + (position - begin_[run]);
  }

 private:
  std::vector<IdRun> runs_;
  std::vector<int64_t> begin_;  // positions before each run
  int64_t n_ = 0;
};

}  // namespace fovea::index
