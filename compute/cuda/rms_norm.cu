#include <cuda_bf16.h>

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

// A warp a row, where there are rows enough for all warps of a GPU: nobody waits for other warps.
constexpr int kRowsPerBlock = kNormThreads / kWarpSize;
template <typename T>
__global__ void __launch_bounds__(kNormThreads)
    RmsNormRowsKernel(const float* x, const float* weight, int64_t n_rows, int hidden_size,
                      float eps, T* out) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(kRowsPerBlock) + threadIdx.x / kWarpSize;
  if (row >= n_rows) return;
  const int lane = threadIdx.x % kWarpSize;
  x += row * hidden_size;
  out += row * hidden_size;
  float sum = 0.0f;
  for (int i = lane; i < hidden_size; i += kWarpSize) sum += x[i] * x[i];
  sum = GroupSum(sum);
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(hidden_size) + eps);
  for (int i = lane; i < hidden_size; i += kWarpSize) {
    out[i] = static_cast<T>(x[i] * factor * weight[i]);
  }
}

template <typename T>
void LaunchRows(const RmsNormArgs& args, cudaStream_t stream) {
  const int64_t n_rows = args.x.dim(0);
  const auto n_blocks = static_cast<unsigned>((n_rows + kRowsPerBlock - 1) / kRowsPerBlock);
  RmsNormRowsKernel<<<n_blocks, kNormThreads, 0, stream>>>(
      args.x.As<float>(), args.weight.As<float>(), n_rows, static_cast<int>(args.x.dim(1)),
      args.eps, static_cast<T*>(args.out.data()));
}

// From so many rows on.
constexpr int64_t kManyRows = 1024;

}  // namespace

absl::Status RmsNorm(Device& device, const RmsNormArgs& args) {
  const cudaStream_t stream = AsCuda(device).stream();
  if (args.out.dtype() == DType::kBF16) {
    LaunchRows<__nv_bfloat16>(args, stream);
    return LaunchStatus("RmsNorm");
  }
  if (args.x.dim(0) >= kManyRows) {
    LaunchRows<float>(args, stream);
    return LaunchStatus("RmsNorm");
  }
  RmsNormKernel<<<static_cast<unsigned>(args.x.dim(0)), kNormThreads, 0, stream>>>(
      args.x.As<float>(), args.weight.As<float>(), static_cast<int>(args.x.dim(1)), args.eps,
      args.out.As<float>());
  return LaunchStatus("RmsNorm");
}

}  // namespace fovea::compute::cuda
