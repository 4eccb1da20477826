// Attention of a few queries to many keys: blocks take runs of them (attention_run.cuh), and a
// second kernel merges what they found.
#include <algorithm>

#include "compute/cuda/attention_run.cuh"

namespace fovea::compute::cuda {
namespace {

template <typename T, int kVector, int kVectors, int kRows>
__global__ void __launch_bounds__(kSplitWarps* kWarpSize, kVector* kVectors <= 16 ? 2 : 1)
    SplitKernel(AttentionInput in, int64_t keys_per_split, SplitParts parts) {
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = in.n_queries * group_size;
  const int kv_head = blockIdx.y;
  const int row0 = blockIdx.z * kRows;
  float query[kRows][kVector * kVectors] = {};
  int64_t n_visible[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = min(row0 + r, n_rows - 1);
    const int position = row / group_size;
    n_visible[r] = in.causal ? in.n_keys - in.n_queries + position + 1 : in.n_keys;
    const int64_t head =
        static_cast<int64_t>(position) * in.n_heads + kv_head * group_size + row % group_size;
    LaneDims<kVector, kVectors>::ForEach(in.head_dim, [&](int i, int dim) {
      query[r][i] = in.queries[head * in.head_dim + dim] * in.scale;
    });
  }
  Running<kVector * kVectors> running[kRows];
  const int64_t begin = blockIdx.x * keys_per_split;
  AttendToRun<T, kVector, kVectors, kRows>(
      in, kv_head, begin, min(begin + keys_per_split, in.n_keys), query, n_visible, running);
  StoreParts<kVector, kVectors, kRows>(in, kv_head, row0, blockIdx.x, gridDim.x, running, parts);
}

// A block a row of [n_queries · n_heads].
__global__ void MergeSplitsKernel(SplitParts parts, int n_splits, int head_dim, float* output,
                                  float* lse) {
  __shared__ float shared[kWarpSize];
  const int64_t row = blockIdx.x;
  const float* const maximum = parts.maximum + row * n_splits;
  float high = -INFINITY;
  for (int s = threadIdx.x; s < n_splits; s += blockDim.x) high = fmaxf(high, maximum[s]);
  high = GroupMax(high);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = high;
  __syncthreads();
  high = -INFINITY;
  for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) high = fmaxf(high, shared[w]);
  __syncthreads();
  float sum = 0.0f;
  if (high > -INFINITY) {
    for (int s = threadIdx.x; s < n_splits; s += blockDim.x) {
      sum += parts.sum[row * n_splits + s] * expf(maximum[s] - high);
    }
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0 && lse != nullptr) lse[row] = sum > 0.0f ? high + logf(sum) : -INFINITY;
  const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float total = 0.0f;
    for (int s = 0; s < n_splits && high > -INFINITY; ++s) {
      total += parts.output[(row * n_splits + s) * head_dim + i] * expf(maximum[s] - high);
    }
    output[row * head_dim + i] = total * factor;
  }
}

}  // namespace

absl::Status AttendInSplits(CudaDevice& device, const AttentionInput& in, bool in_bf16) {
  const int n_rows = in.n_queries * (in.n_heads / in.n_kv_heads);
  // Two blocks a multiprocessor, or as many as there are keys for.
  const int64_t wanted = std::max(1, 2 * device.n_multiprocessors() / in.n_kv_heads);
  const int64_t possible = (in.n_keys + kMinKeysPerSplit - 1) / kMinKeysPerSplit;
  const auto n_splits = static_cast<int>(std::clamp<int64_t>(possible, 1, wanted));
  const int64_t keys_per_split = (in.n_keys + n_splits - 1) / n_splits;
  const int64_t n_parts = int64_t{in.n_queries} * in.n_heads * n_splits;
  ASSIGN_OR_RETURN(
      std::byte* const scratch,
      device.Scratch(static_cast<size_t>(n_parts * (in.head_dim + 2)) * sizeof(float)));
  auto* const floats = reinterpret_cast<float*>(scratch);
  const SplitParts parts{floats, floats + n_parts, floats + 2 * n_parts};
  const auto launch = [&]<typename T, int kVector, int kVectors, int kRows>() {
    const dim3 grid(static_cast<unsigned>(n_splits), static_cast<unsigned>(in.n_kv_heads),
                    static_cast<unsigned>((n_rows + kRows - 1) / kRows));
    SplitKernel<T, kVector, kVectors, kRows>
        <<<grid, kSplitWarps * kWarpSize, 0, device.stream()>>>(in, keys_per_split, parts);
    return LaunchStatus("Attention");
  };
  RETURN_IF_ERROR(in_bf16 ? VisitSplitShape<__nv_bfloat16>(in, n_rows, launch)
                          : VisitSplitShape<float>(in, n_rows, launch));
  MergeSplitsKernel<<<static_cast<unsigned>(in.n_queries * in.n_heads), 64, 0, device.stream()>>>(
      parts, n_splits, in.head_dim, in.output, in.lse);
  return LaunchStatus("Attention");
}

}  // namespace fovea::compute::cuda
