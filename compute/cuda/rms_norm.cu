#include "compute/cuda/cuda_device.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kThreads = 256;

// A block a row.
__global__ void RmsNormKernel(const float* x, const float* weight, int hidden_size, float eps,
                              float* out) {
  __shared__ float sums[kWarpSize];
  x += blockIdx.x * static_cast<int64_t>(hidden_size);
  out += blockIdx.x * static_cast<int64_t>(hidden_size);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < hidden_size; i += kThreads) sum += x[i] * x[i];
  sum = BlockSum(sum, sums);
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(hidden_size) + eps);
  for (int i = threadIdx.x; i < hidden_size; i += kThreads) out[i] = x[i] * factor * weight[i];
}

}  // namespace

absl::Status RmsNorm(Device& device, const RmsNormArgs& args) {
  RmsNormKernel<<<static_cast<unsigned>(args.x.dim(0)), kThreads, 0, AsCuda(device).stream()>>>(
      args.x.As<float>(), args.weight.As<float>(), static_cast<int>(args.x.dim(1)), args.eps,
      args.out.As<float>());
  return LaunchStatus("RmsNorm");
}

}  // namespace fovea::compute::cuda
