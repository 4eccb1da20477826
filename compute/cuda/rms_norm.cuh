// RMSNorm of a row, by a block: the same bits wherever it is computed.
#pragma once

#include <cstdint>

#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kNormThreads = 128;  // of the block

// A thread sums the squares of every so many-th four neighbours.
__device__ inline void AddSquares(const float4& x, float& sum) {
  sum = __fmaf_rn(x.x, x.x, sum);
  sum = __fmaf_rn(x.y, x.y, sum);
  sum = __fmaf_rn(x.z, x.z, sum);
  sum = __fmaf_rn(x.w, x.w, sum);
}
// From a thread's sum; `sums`: see NormRow.
__device__ inline float NormFactor(float sum, int n, float eps, float* sums) {
  return 1.0f / sqrtf(BlockSum(sum, sums) / static_cast<float>(n) + eps);
}
__device__ inline float4 Normed(const float4& x, float factor, const float4& weight) {
  return {x.x * factor * weight.x, x.y * factor * weight.y, x.z * factor * weight.z,
          x.w * factor * weight.w};
}

// out = x / sqrt(mean(x²) + eps) · weight. `sums`: room for 32 floats, used until the next
// __syncthreads(). `out` may be x.
__device__ inline void NormRow(const float* x, const float* weight, int n, float eps, float* sums,
                               float* out) {
  const auto is_aligned = [](const float* data) {
    return reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0;
  };
  float sum = 0.0f;
  if (n % 4 == 0 && is_aligned(x) && is_aligned(weight) && is_aligned(out)) {
    const auto* const quads = reinterpret_cast<const float4*>(x);
    const auto* const weights = reinterpret_cast<const float4*>(weight);
#pragma unroll 4
    for (int i = threadIdx.x; i < n / 4; i += kNormThreads) AddSquares(quads[i], sum);
    const float factor = NormFactor(sum, n, eps, sums);
#pragma unroll 4
    for (int i = threadIdx.x; i < n / 4; i += kNormThreads) {
      reinterpret_cast<float4*>(out)[i] = Normed(quads[i], factor, weights[i]);
    }
    return;
  }
  for (int first = 4 * threadIdx.x; first < n; first += 4 * kNormThreads) {
    for (int i = first; i < min(first + 4, n); ++i) sum = __fmaf_rn(x[i], x[i], sum);
  }
  const float factor = NormFactor(sum, n, eps, sums);
  for (int i = threadIdx.x; i < n; i += kNormThreads) out[i] = x[i] * factor * weight[i];
}

}  // namespace fovea::compute::cuda
