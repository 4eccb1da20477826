// Cosines and sines of a run of positions, kept from one layer to the next: every layer of a
// model rotates queries and keys by the same angles.
#pragma once

#include <cstdint>
#include <vector>

namespace fovea::compute::cpu {

// Not thread-safe; a CpuDevice owns one.
class RopeTable {
 public:
  // Makes the table hold [first_position, first_position + n_tokens) for these frequencies.
  void Prepare(const float* inverse_frequencies, int64_t half_dim, int64_t first_position,
               int64_t n_tokens);
  // [half_dim] of token t of the last Prepare.
  const float* cos(int64_t t) const { return cos_.data() + t * half_dim(); }
  const float* sin(int64_t t) const { return sin_.data() + t * half_dim(); }

 private:
  int64_t half_dim() const { return static_cast<int64_t>(inverse_frequencies_.size()); }

  std::vector<float> inverse_frequencies_;
  int64_t first_position_ = 0;
  int64_t n_tokens_ = 0;
  std::vector<float> cos_;  // [n_tokens, half_dim]
  std::vector<float> sin_;
};

}  // namespace fovea::compute::cpu
