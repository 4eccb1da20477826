// Sums, maxima and merges over the threads of a warp or a block, in an order that depends on
// nothing but the number of threads.
#pragma once

namespace fovea::compute::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kWarpSize = 32;

// Over groups of kLanes neighbours; every lane gets the result.
template <int kLanes = kWarpSize>
__device__ inline float GroupSum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

template <int kLanes = kWarpSize>
__device__ inline float GroupMax(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

// Over all threads of a block of up to 1,024, a whole number of warps; every thread gets the
// result. `shared`: room for 32 floats, free again after the next __syncthreads().
__device__ inline float BlockSum(float value, float* shared) {
  value = GroupSum(value);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  const int n_warps = (blockDim.x + kWarpSize - 1) / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  return GroupSum(lane < n_warps ? shared[lane] : 0.0f);
}

}  // namespace fovea::compute::cuda
