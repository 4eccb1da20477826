#include "index/key_space.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fovea::index {

absl::StatusOr<KeyStatistics> Analyse(const std::vector<compute::KeyRun>& runs, int64_t head_dim) {
  const size_t dim = static_cast<size_t>(head_dim);
  KeyStatistics statistics;
  std::vector<double> sum(dim);
  std::vector<float> key(dim);
  std::vector<float> low(dim, std::numeric_limits<float>::infinity());
  std::vector<float> high(dim, -std::numeric_limits<float>::infinity());
  std::vector<int64_t> lowest(dim), highest(dim);
  int64_t position = 0;
  for (const compute::KeyRun& run : runs) {
    for (int64_t j = 0; j < run.n_keys; ++j, ++position) {
      EntriesToFloat(run.keys + j * head_dim, key.data(), dim);
      for (size_t d = 0; d < dim; ++d) {
        sum[d] += key[d];
        if (key[d] < low[d]) low[d] = key[d], lowest[d] = position;
        if (key[d] > high[d]) high[d] = key[d], highest[d] = position;
      }
    }
  }
  statistics.mean.resize(dim);
  if (position == 0) return statistics;
  for (size_t d = 0; d < dim; ++d) {
    // A NaN or an infinity among the keys is one in the sum.
    if (!std::isfinite(sum[d])) {
      return absl::InvalidArgumentError(
          StrCat("dimension ", d, " of a key holds NaN or infinity, want finite keys"));
    }
    statistics.mean[d] = static_cast<float>(sum[d] / static_cast<double>(position));
  }
  double largest = 0.0;
  for (const compute::KeyRun& run : runs) {
    for (int64_t j = 0; j < run.n_keys; ++j) {
      EntriesToFloat(run.keys + j * head_dim, key.data(), dim);
      float norm2 = 0.0f;
      for (size_t d = 0; d < dim; ++d) {
        const float value = key[d] - statistics.mean[d];
        norm2 += value * value;
      }
      largest = std::max<double>(largest, norm2);
    }
  }
  statistics.radius = static_cast<float>(std::sqrt(largest));
  if (!std::isfinite(statistics.radius)) {
    return absl::InvalidArgumentError("the norm of a key overflows");
  }
  statistics.extremes = lowest;
  statistics.extremes.insert(statistics.extremes.end(), highest.begin(), highest.end());
  std::sort(statistics.extremes.begin(), statistics.extremes.end());
  statistics.extremes.erase(std::unique(statistics.extremes.begin(), statistics.extremes.end()),
                            statistics.extremes.end());
  return statistics;
}

void KeySpace::MapKey(EntryPointer key, float* out) const {
  const size_t dim = mean_.size();
  EntriesToFloat(key, out, dim);
  float norm2 = 0.0f;
  for (size_t d = 0; d < dim; ++d) {
    out[d] -= mean_[d];
    norm2 += out[d] * out[d];
  }
  std::fill(out + dim, out + index_dim_, 0.0f);
  if (is_augmented_) out[dim] = std::sqrt(std::max(0.0f, radius_ * radius_ - norm2));
}

void KeySpace::MapQuery(const float* query, float* out) const {
  const size_t dim = mean_.size();
  float scale = 1.0f;
  if (is_augmented_) {
    float norm2 = 0.0f;
    for (size_t d = 0; d < dim; ++d) norm2 += query[d] * query[d];
    // A query of zeros ranks nothing; one that overflows is left to be what it is.
    if (norm2 > 0.0f && std::isfinite(norm2)) scale = radius_ / std::sqrt(norm2);
  }
  for (size_t d = 0; d < dim; ++d) out[d] = scale * query[d];
  std::fill(out + dim, out + index_dim_, 0.0f);
}

}  // namespace fovea::index
