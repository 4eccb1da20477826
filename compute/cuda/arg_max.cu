#include <algorithm>

#include "compute/arg_max.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/select.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kNumbersPerBlock = 2048;

// A number and its index in one word, whose order is that of the numbers, of equal ones smaller
// indexes first. NaN is the least.
__device__ inline uint64_t PackNumber(float x, uint32_t index) {
  return Pack(isnan(x) ? -INFINITY : x, index);
}

// counters[0]: the greatest word so far; [1]: how many blocks are done.
__global__ void ArgMaxKernel(const float* x, int n, int32_t* out, unsigned long long* counters) {
  __shared__ unsigned long long greatest[kThreads / kWarpSize];
  AllowNextKernel();
  AwaitKernelBefore();
  unsigned long long best = 0;
  const int end = min(n, static_cast<int>(blockIdx.x + 1) * kNumbersPerBlock);
  for (int i = static_cast<int>(blockIdx.x) * kNumbersPerBlock + static_cast<int>(threadIdx.x);
       i < end; i += kThreads) {
    best = max(best, static_cast<unsigned long long>(PackNumber(x[i], static_cast<uint32_t>(i))));
  }
#pragma unroll
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    best = max(best, __shfl_xor_sync(kAllLanes, best, offset));
  }
  if (threadIdx.x % kWarpSize == 0) greatest[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / kWarpSize; ++w) best = max(best, greatest[w]);
  atomicMax(counters, best);
  __threadfence();
  if (atomicAdd(counters + 1, 1ull) != gridDim.x - 1) return;
  __threadfence();
  *out = static_cast<int32_t>(~static_cast<uint32_t>(atomicExch(counters, 0ull)));
  counters[1] = 0;
}

}  // namespace

absl::Status ArgMax(Device& device, const ArgMaxArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const auto n = static_cast<int>(args.x.dim(0));
  const int blocks = (n - 1) / kNumbersPerBlock + 1;
  return LaunchDependent(cuda, "ArgMax", ArgMaxKernel, dim3(static_cast<unsigned>(blocks)),
                         kThreads, 0, args.x.As<float>(), n, args.out,
                         reinterpret_cast<unsigned long long*>(cuda.counters()));
}

}  // namespace fovea::compute::cuda
