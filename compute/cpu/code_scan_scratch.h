// What a coded scan (compute/code_scan.h) collects on its way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fovea::compute::cpu {

struct Hit {
  float score;
  int32_t position;
};

inline bool IsBetter(const Hit& a, const Hit& b) {
  return a.score > b.score || (a.score == b.score && a.position < b.position);
}

// The `n_kept` best of what passes a threshold, which rises as more comes than is kept.
class Collector {
 public:
  void Start(int64_t n_kept, float threshold) {
    n_kept_ = static_cast<size_t>(n_kept);
    // Sorting out costs about as much as what it removes took to come.
    capacity_ = std::max<size_t>(4 * n_kept_, 64);
    threshold_ = threshold;
    hits_.clear();
    hits_.reserve(capacity_);
  }
  float threshold() const { return threshold_; }
  const std::vector<Hit>& hits() const { return hits_; }
  // Belongs into the kernels, where the compiler by itself would call it.
  [[gnu::always_inline]] void Add(Hit hit) {
    hits_.push_back(hit);
    if (hits_.size() == capacity_) Shrink();
  }
  void Shrink() {
    if (hits_.size() <= n_kept_) return;
    const auto worst = hits_.begin() + static_cast<int64_t>(n_kept_) - 1;
    std::nth_element(hits_.begin(), worst, hits_.end(), IsBetter);
    hits_.resize(n_kept_);
    threshold_ = hits_.back().score;
  }

 private:
  size_t n_kept_ = 0;
  size_t capacity_ = 0;
  float threshold_ = 0.0f;
  std::vector<Hit> hits_;
};

// What a call needs, kept by the device for the next one.
struct CodeScanScratch {
  std::vector<float> rotated;                      // [padded_dim]
  std::vector<uint32_t> words;                     // [n_groups][padded_dim / 4, rows of the group]
  std::vector<float> offsets;                      // [n_rows]
  std::vector<float> thresholds;                   // [n_rows]
  std::vector<Collector> samples;                  // [n_parts][n_rows]
  std::vector<std::vector<Collector>> collectors;  // [n_threads][n_rows]
  std::vector<std::vector<uint8_t>> started;       // [n_threads][n_rows]
};

}  // namespace fovea::compute::cpu
