// A factor of a low-rank update as single-token steps read it: as bfloat16 where that is exact
// (adapters are mostly stored so), which halves what is read; else the floats, borrowed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/float16.h"
#include "compute/dtype.h"
#include "compute/view.h"

namespace fovea::compute::cpu {

// Immutable and thread-safe.
class LoraFactor {
 public:
  explicit LoraFactor(const ConstView& factor) : values_(factor.As<float>()) {
    if (values_ == nullptr) return;
    const float* const values = values_;
    const int64_t n = factor.size();
    const auto is_exact = [](float value) { return float(BFloat16(value)) == value; };
    if (!std::all_of(values, values + n, is_exact)) return;
    rounded_.resize(static_cast<size_t>(n));
    FloatToBFloat16(values, rounded_.data(), static_cast<size_t>(n));
  }
  DType dtype() const { return rounded_.empty() ? DType::kF32 : DType::kBF16; }
  const std::byte* data() const {
    return rounded_.empty() ? reinterpret_cast<const std::byte*>(values_)
                            : reinterpret_cast<const std::byte*>(rounded_.data());
  }

 private:
  const float* values_;
  std::vector<BFloat16> rounded_;
};

}  // namespace fovea::compute::cpu
