#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

// A block a row of [n_queries · n_heads].
__global__ void MergePartialsKernel(float* output, float* lse, const float* other_output,
                                    const float* other_lse, int head_dim) {
  AllowNextKernel();
  AwaitKernelBefore();
  const int64_t row = blockIdx.x;
  const float a = lse[row];
  const float b = other_lse[row];
  const float high = fmaxf(a, b);
  const bool none = high == -INFINITY;
  const float merged = none ? high : high + log1pf(expf(fminf(a, b) - high));
  const float own = none ? 0.0f : expf(a - merged);
  const float other = none ? 0.0f : expf(b - merged);
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    const int64_t at = row * head_dim + i;
    // What has no weight may hold anything.
    const float from_own = own == 0.0f ? 0.0f : own * output[at];
    const float from_other = other == 0.0f ? 0.0f : other * other_output[at];
    output[at] = from_own + from_other;
  }
  __syncthreads();
  if (threadIdx.x == 0) lse[row] = merged;
}

}  // namespace

absl::Status MergePartials(Device& device, const MergePartialsArgs& args) {
  const int64_t n_rows = args.lse.size();
  return LaunchDependent(AsCuda(device), "MergePartials", MergePartialsKernel,
                         dim3(static_cast<unsigned>(n_rows)), 64, 0, args.output.As<float>(),
                         args.lse.As<float>(), args.other_output.As<float>(),
                         args.other_lse.As<float>(), static_cast<int>(args.output.dim(2)));
}

}  // namespace fovea::compute::cuda
