#include "compute/cuda/cuda_device.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/rms_norm.cuh"

namespace fovea::compute::cuda {
namespace {

// A block a row.
__global__ void RmsNormKernel(const float* x, const float* weight, int hidden_size, float eps,
                              float* out) {
  __shared__ float sums[kWarpSize];
  const int64_t begin = blockIdx.x * static_cast<int64_t>(hidden_size);
  NormRow(x + begin, weight, hidden_size, eps, sums, out + begin);
}

}  // namespace

absl::Status RmsNorm(Device& device, const RmsNormArgs& args) {
  RmsNormKernel<<<static_cast<unsigned>(args.x.dim(0)), kNormThreads, 0, AsCuda(device).stream()>>>(
      args.x.As<float>(), args.weight.As<float>(), static_cast<int>(args.x.dim(1)), args.eps,
      args.out.As<float>());
  return LaunchStatus("RmsNorm");
}

}  // namespace fovea::compute::cuda
