#include "compute/cuda/cuda_device.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

struct Heads {
  float* x;  // [n, head_dim]
  int64_t n;
  const float* weight;  // [head_dim]
};

constexpr int kHeadsPerBlock = 4;
// Of a head, that a lane has in registers: all of them up to a head_dim of 256.
constexpr int kHeld = 8;

// A warp a head: those of all queries, then those of all keys. A lane has every 32nd dimension.
__global__ void __launch_bounds__(kHeadsPerBlock* kWarpSize)
    QkNormKernel(Heads queries, Heads keys, int head_dim, float eps) {
  int64_t head = blockIdx.x * static_cast<int64_t>(kHeadsPerBlock) + threadIdx.x / kWarpSize;
  const bool is_key = head >= queries.n;
  if (is_key) head -= queries.n;
  const Heads& heads = is_key ? keys : queries;
  const bool is_there = head < heads.n;
  const int lane = threadIdx.x % kWarpSize;
  const float* const weight = heads.weight;
  float weights[kHeld];
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = lane + j * kWarpSize;
    weights[j] = i < head_dim ? weight[i] : 0.0f;
  }
  AwaitKernelBefore();
  AllowNextKernel();
  if (!is_there) return;
  float* const x = heads.x + head * head_dim;
  float held[kHeld];
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = lane + j * kWarpSize;
    held[j] = i < head_dim ? __ldcg(x + i) : 0.0f;
    sum = __fmaf_rn(held[j], held[j], sum);
  }
  constexpr int kFirstLeft = kHeld * kWarpSize;
  for (int i = lane + kFirstLeft; i < head_dim; i += kWarpSize) {
    sum = __fmaf_rn(__ldcg(x + i), __ldcg(x + i), sum);
  }
  const float factor = 1.0f / sqrtf(GroupSum(sum) / static_cast<float>(head_dim) + eps);
#pragma unroll
  for (int j = 0; j < kHeld; ++j) {
    const int i = lane + j * kWarpSize;
    if (i < head_dim) x[i] = held[j] * factor * weights[j];
  }
  for (int i = lane + kFirstLeft; i < head_dim; i += kWarpSize) {
    x[i] = __ldcg(x + i) * factor * weight[i];
  }
}

}  // namespace

absl::Status QkNorm(Device& device, const QkNormArgs& args) {
  const Heads queries{args.queries.As<float>(), args.queries.dim(0) * args.queries.dim(1),
                      args.query_weight.As<float>()};
  const Heads keys{args.keys.As<float>(), args.keys.dim(0) * args.keys.dim(1),
                   args.key_weight.As<float>()};
  const auto n_blocks =
      static_cast<unsigned>((queries.n + keys.n + kHeadsPerBlock - 1) / kHeadsPerBlock);
  return LaunchDependent(AsCuda(device), "QkNorm", QkNormKernel, dim3(n_blocks),
                         kHeadsPerBlock * kWarpSize, 0, queries, keys,
                         static_cast<int>(args.queries.dim(2)), args.eps);
}

}  // namespace fovea::compute::cuda
