// Attention to what a search kept, by the sums that the search would have made itself
// (attend_to_kept.cuh).
#include <cuda_bf16.h>

#include "compute/cuda/attend_to_kept.cuh"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

// A block a query head. problem: positions, scores and output; gathered: [n_rows, top_k, head_dim].
template <typename Element>
__global__ void __launch_bounds__(kSelectThreads)
    KeptKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem,
               const Element* gathered) {
  __shared__ float weights[kMaxMemoryTopK];
  __shared__ float sums[kSelectThreads];
  AwaitKernelBefore();
  AllowNextKernel();
  const int64_t row = blockIdx.x;
  const int kv_head = static_cast<int>(row % problem.n_heads) / problem.group;
  const int64_t* const positions = problem.positions + row * problem.top_k;
  const float* const scores = problem.scores + row * problem.top_k;
  // Those that were kept come first.
  int n_kept = 0;
  for (int base = 0; base < problem.top_k; base += kSelectThreads) {
    const int j = base + static_cast<int>(threadIdx.x);
    n_kept += __syncthreads_count(j < problem.top_k && positions[j] >= 0);
  }
  const float high = n_kept > 0 ? scores[0] * problem.scale : 0.0f;
  const float sum = KeptWeights(
      n_kept, problem.scale, high, [&](int j) { return scores[j]; }, weights, sums);
  __syncthreads();
  AddKeptValues(
      n_kept, problem.head_dim, sum, weights,
      [&](int j) {
        const auto* const value = ValueAt<Element>(parts, positions[j], kv_head, problem.head_dim);
        return value != nullptr ? value : gathered + (row * problem.top_k + j) * problem.head_dim;
      },
      sums, problem.output + row * problem.head_dim);
}

}  // namespace

absl::Status KeptAttention(Device& device, const KeptAttentionArgs& args) {
  constexpr std::string_view kOp = "KeptAttention";
  const int64_t n_heads = args.output.dim(1);
  const int64_t head_dim = args.output.dim(2);
  if (head_dim > kSelectThreads) {
    return absl::UnimplementedError(StrCat(
        kOp, ": heads of ", head_dim, " dimensions, want at most ", kSelectThreads, " on a GPU"));
  }
  Parts parts = {};
  int64_t n_positions = 0;
  for (const MemoryPart& part : args.parts) {
    AddPart(part, n_positions, &parts, /*is_scanned=*/false);
    n_positions += part.keys.dim(1);
  }
  Problem problem = {};
  problem.n_queries = static_cast<int>(args.output.dim(0));
  problem.n_heads = static_cast<int>(n_heads);
  problem.group = static_cast<int>(n_heads / args.parts[0].keys.dim(0));
  problem.head_dim = static_cast<int>(head_dim);
  problem.top_k = args.top_k;
  problem.scale = args.scale;
  problem.output = args.output.As<float>();
  problem.positions = const_cast<int64_t*>(args.positions);
  problem.scores = const_cast<float*>(args.scores);
  const auto launch = [&]<typename Element>(const Element* gathered) {
    return LaunchDependent(AsCuda(device), kOp, KeptKernel<Element>,
                           dim3(static_cast<unsigned>(args.output.dim(0) * n_heads)),
                           kSelectThreads, 0, parts, problem, gathered);
  };
  return args.parts[0].keys.dtype() == DType::kBF16 ? launch(args.gathered.As<__nv_bfloat16>())
                                                    : launch(args.gathered.As<float>());
}

}  // namespace fovea::compute::cuda
