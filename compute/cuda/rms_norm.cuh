// RMSNorm of a row, by a block: the same bits wherever it is computed.
#pragma once

#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kNormThreads = 128;  // of the block

// out = x / sqrt(mean(x²) + eps) · weight. `sums`: room for 32 floats, used until the next
// __syncthreads(). `out` may be x.
__device__ inline void NormRow(const float* x, const float* weight, int n, float eps, float* sums,
                               float* out) {
  float sum = 0.0f;
  for (int i = threadIdx.x; i < n; i += kNormThreads) sum += x[i] * x[i];
  sum = BlockSum(sum, sums);
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
  for (int i = threadIdx.x; i < n; i += kNormThreads) out[i] = x[i] * factor * weight[i];
}

}  // namespace fovea::compute::cuda
