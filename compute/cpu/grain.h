// How many items of a parallel loop go to a thread at once.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fovea::compute::cpu {

// Handing a range to a thread costs about a microsecond; element-wise work takes about as long
// for a few thousand values, so a range should hold several times that.
inline constexpr int64_t kValuesPerRange = 16384;

// Items of `values_per_item` values each.
inline int64_t ElementwiseGrain(int64_t values_per_item) {
  return std::max<int64_t>(1, kValuesPerRange / std::max<int64_t>(1, values_per_item));
}

}  // namespace fovea::compute::cpu
