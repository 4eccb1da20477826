#include "compute/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace fovea::compute::cpu {

void RopeTable::Prepare(const float* inverse_frequencies, int64_t half_dim, int64_t first_position,
                        int64_t n_tokens) {
  const bool same =
      half_dim == this->half_dim() && first_position == first_position_ && n_tokens <= n_tokens_ &&
      std::equal(inverse_frequencies_.begin(), inverse_frequencies_.end(), inverse_frequencies);
  if (same) return;
  inverse_frequencies_.assign(inverse_frequencies, inverse_frequencies + half_dim);
  first_position_ = first_position;
  n_tokens_ = n_tokens;
  cos_.resize(static_cast<size_t>(n_tokens * half_dim));
  sin_.resize(cos_.size());
  for (int64_t t = 0; t < n_tokens; ++t) {
    const auto position = static_cast<float>(first_position + t);
    for (int64_t i = 0; i < half_dim; ++i) {
      const float angle = position * inverse_frequencies[i];
      cos_[static_cast<size_t>(t * half_dim + i)] = std::cos(angle);
      sin_[static_cast<size_t>(t * half_dim + i)] = std::sin(angle);
    }
  }
}

}  // namespace fovea::compute::cpu
