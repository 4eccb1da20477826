// How many blocks ops take that compute each element by itself.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fovea::compute::cuda {

inline constexpr int kElementThreads = 256;

// Blocks of kElementThreads for n elements, each thread as many as it takes with this stride.
inline unsigned ElementBlocks(int64_t n) {
  return static_cast<unsigned>(
      std::clamp<int64_t>((n + kElementThreads - 1) / kElementThreads, 1, 65536));
}

// for (int64_t i : elements of this thread)
#define FOVEA_FOR_EACH_ELEMENT(i, n)                                                     \
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < (n); \
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)

}  // namespace fovea::compute::cuda
