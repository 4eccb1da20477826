#include "compute/cuda/cuda_device.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/warp.cuh"
#include "compute/index_queries.h"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 4;  // of a block, a row each

// queries: [n_queries, n_heads, head_dim] → out: [n_rows, index_dim], n_lists rows a KV head.
__global__ void __launch_bounds__(kWarps* kWarpSize)
    IndexQueriesKernel(const float* queries, const float* radii, int64_t n_rows, int64_t n_lists,
                       int n_heads, int group, int head_dim, int index_dim, int first_axis,
                       float axis_value, float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (row >= n_rows) return;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t kv_head = row / n_lists;
  const int64_t query = row % n_lists / group;
  const float* const from =
      queries + (query * n_heads + kv_head * group + row % group) * int64_t{head_dim};
  float scale = 1.0f;
  if (radii != nullptr) {
    float norm2 = 0.0f;
    for (int d = lane; d < head_dim; d += kWarpSize) norm2 = fmaf(from[d], from[d], norm2);
    norm2 = GroupSum(norm2);
    if (norm2 > 0.0f && isfinite(norm2)) scale = radii[kv_head] / sqrtf(norm2);
  }
  for (int d = lane; d < index_dim; d += kWarpSize) {
    const bool is_axis = first_axis > 0 && d == first_axis + kv_head;
    out[row * index_dim + d] = d < head_dim ? scale * from[d] : is_axis ? axis_value : 0.0f;
  }
}

}  // namespace

absl::Status IndexQueries(Device& device, const IndexQueriesArgs& args) {
  const int64_t n_rows = args.out.dim(0) * args.out.dim(1);
  const auto n_blocks = static_cast<unsigned>((n_rows + kWarps - 1) / kWarps);
  const int64_t n_heads = args.queries.dim(1);
  IndexQueriesKernel<<<n_blocks, kWarps * kWarpSize, 0, AsCuda(device).stream()>>>(
      args.queries.As<float>(), static_cast<const float*>(args.radii.data()), n_rows,
      args.out.dim(1), static_cast<int>(n_heads), static_cast<int>(n_heads / args.out.dim(0)),
      static_cast<int>(args.queries.dim(2)), static_cast<int>(args.out.dim(2)),
      static_cast<int>(args.first_axis), args.axis_value, args.out.As<float>());
  return LaunchStatus("IndexQueries");
}

}  // namespace fovea::compute::cuda
