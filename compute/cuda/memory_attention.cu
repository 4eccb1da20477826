// Exact attention to the top k of millions of keys, at about the time that reading them takes.
//
// There is no matrix of scores, and nothing is kept sorted while keys are read. A *tile* is a run
// of up to 256 keys of a KV head. The first kernel reads every key once for all query heads of its
// group and stores nothing but the best score of each tile. The k-th best of these maxima, T, is at
// most the k-th best score, since k tiles have a key that is as good; so all of the top k lie in
// the k tiles with the best maxima (of equal ones the first: as many keys of score T as tiles of
// maximum T are needed, and those of the first tiles come first). The second kernel, a block for
// each query head, finds these tiles, scores their keys again by the same sums, keeps what reaches
// T, sorts it, and attends to its values. Any order of keys and any scores are exact; the cost
// beside the reading is that of k tiles.
//
// A *scorer* computes the scores of 32 keys, a *step* of a warp, with some rows (query heads):
// scores_simd.cuh for any type and shape, scores_mma.cuh for bfloat16 keys on tensor cores, and
// scores_mma_wide.cuh for many rows: several questions, or the tokens of a prompt, whose rows share
// one read of the keys.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/attend_to_kept.cuh"
#include "compute/cuda/cuda_device.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/key_scan.cuh"
#include "compute/cuda/memory_parts.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/scores_mma.cuh"
#include "compute/cuda/scores_mma_wide.cuh"
#include "compute/cuda/scores_simd.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kScanWarps = 8;     // of a multiprocessor's two blocks of the scan
constexpr int kMaxTileSteps = 8;  // of a tile: 256 keys

enum class Kernels { kScan, kScanAndAttend };

// blockIdx.y: KV head; blockIdx.z: kRows of its rows (query · group + head of the group). A warp a
// tile, with the stride of the grid. Dynamic shared memory: kBlockSharedBytes, kSharedBytes a warp.
template <typename Scorer>
__global__ void __launch_bounds__(Scorer::kMaxWarps* kWarpSize)
    ScanKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  extern __shared__ uint4 shared[];
  // The next kernel reads the queries, too: it begins once they are there.
  AwaitKernelBefore();
  AllowNextKernel();
  using Element = typename Scorer::Element;
  const int kv_head = blockIdx.y;
  const int n_rows = problem.n_queries * problem.group;
  const int row0 = blockIdx.z * Scorer::kRows;
  const int n_warps = blockDim.x / kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  auto* const bytes = reinterpret_cast<std::byte*>(shared);
  const auto query_of = [&](int r) { return QueryOf(problem, kv_head, row0 + r); };
  const Scorer scorer = [&] {
    if constexpr (Scorer::kBlockSharedBytes > 0) {
      return Scorer(query_of, problem.head_dim, bytes, n_rows - row0);
    } else {
      return Scorer(query_of, problem.head_dim);
    }
  }();
  typename Scorer::Pipeline pipeline(
      scorer, bytes + Scorer::kBlockSharedBytes + warp * Scorer::kSharedBytes);
  ScanTiles<Scorer>(
      parts, static_cast<int>(blockIdx.x) * n_warps + warp, gridDim.x * n_warps, pipeline,
      [&](int p, int64_t first) {
        const Part& part = parts.part[p];
        pipeline.Next(static_cast<const Element*>(part.keys) + kv_head * part.key_stride, first,
                      part.n_tokens);
      },
      [&](int, int tile, const auto& best) {
        best.Finish([&](int r, float maximum) {
          if (row0 + r >= n_rows) return;
          problem.maxima[QueryHead(problem, kv_head, row0 + r) * problem.maxima_per_row + tile] =
              maximum;
        });
      });
}

// A block a query head.
template <typename Scorer>
__global__ void __launch_bounds__(kSelectThreads)
    AttendKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  __shared__ AttendShared shared;
  __shared__ int n_candidates;
  __shared__ int tiles[kMaxMemoryTopK];
  constexpr int kWarps = kSelectThreads / kWarpSize;
  using Element = typename Scorer::Element;

  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(row % problem.n_heads);
  const int kv_head = head / problem.group;
  const int kv_row = static_cast<int>(row / problem.n_heads) * problem.group + head % problem.group;
  const int row0 = kv_row / Scorer::kRows * Scorer::kRows;  // as in the scan
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const Scorer scorer([&](int r) { return QueryOf(problem, kv_head, row0 + r); }, problem.head_dim);
  uint64_t* const candidates = problem.candidates + row * problem.candidates_per_row;
  if (threadIdx.x == 0) n_candidates = 0;
  AwaitKernelBefore();

  // The tiles that hold the top k, and what a score must reach.
  const BestTiles best = FindBestTiles(problem.maxima + row * problem.maxima_per_row, parts.n_tiles,
                                       problem.top_k, tiles, &shared);

  // Their keys again. What is found goes to shared memory, and where that is full, all of it is in
  // global memory.
  const int tile_steps = parts.tile_keys / kStepKeys;
  for (int step = warp; step < best.n_tiles * tile_steps; step += kWarps) {
    const int tile = tiles[step / tile_steps];
    const Part& part = parts.part[PartOfTile(parts, tile)];
    const int64_t first = Step<kStepKeys>{tile, step % tile_steps}.First(parts, part);
    if (first >= part.n_tokens) continue;
    const auto scores = scorer.ScoreStep(
        static_cast<const Element*>(part.keys) + kv_head * part.key_stride, first, part.n_tokens);
    const float score = scores.OfRow(kv_row - row0);
    const bool enters =
        IsAllowed(part, first + lane) && score >= best.threshold && score > -INFINITY;
    const unsigned entering = __ballot_sync(kAllLanes, enters);
    if (entering == 0) continue;
    int place = 0;
    if (lane == 0) place = atomicAdd(&n_candidates, __popc(entering));
    place = __shfl_sync(kAllLanes, place, 0) + __popc(entering & ((1u << lane) - 1));
    if (enters) {
      const uint64_t found = Pack(score, static_cast<uint32_t>(part.first_position + first + lane));
      candidates[place] = found;
      if (place < kMaxSorted) shared.sorted[place] = found;
    }
  }
  __syncthreads();
  AttendToKept<Element>(parts, problem, row, kv_head, n_candidates, candidates, &shared);
}

template <typename Scan, typename Attend>
absl::Status Launch(CudaDevice& device, const Parts& parts, const Problem& problem, int n_kv_heads,
                    Kernels kernels) {
  if (parts.n_tiles > 0) {
    dim3 grid;
    int n_warps = 0;
    const int n_rows = problem.n_queries * problem.group;
    RETURN_IF_ERROR(ScanGrid(device, ScanKernel<Scan>, Scan::kSharedBytes, Scan::kMaxWarps,
                             parts.n_tiles, n_kv_heads, (n_rows + Scan::kRows - 1) / Scan::kRows,
                             &grid, &n_warps, Scan::kBlockSharedBytes));
    RETURN_IF_ERROR(
        LaunchDependent(device, "MemoryAttention", ScanKernel<Scan>, grid, n_warps * kWarpSize,
                        static_cast<size_t>(Scan::kBlockSharedBytes + n_warps * Scan::kSharedBytes),
                        parts, problem));
  }
  if (kernels == Kernels::kScan) return absl::OkStatus();
  return LaunchDependent(device, "MemoryAttention", AttendKernel<Attend>,
                         dim3(static_cast<unsigned>(problem.n_queries * problem.n_heads)),
                         kSelectThreads, 0, parts, problem);
}

// As many rows of the scan as registers hold beside eight keys' elements.
template <typename T, int kVector, int kVectors>
absl::Status LaunchSimd(CudaDevice& device, const Parts& parts, const Problem& problem,
                        int n_kv_heads, Kernels kernels) {
  using One = SimdScorer<T, kVector, kVectors, 1>;
  constexpr int kMost = One::kDims <= 8 ? 4 : One::kDims <= 16 ? 2 : 1;
  if (problem.n_queries * problem.group > 1 && kMost > 1) {
    using Most = SimdScorer<T, kVector, kVectors, kMost>;
    return Launch<Most, One>(device, parts, problem, n_kv_heads, kernels);
  }
  return Launch<One, One>(device, parts, problem, n_kv_heads, kernels);
}

template <int kVectors>
absl::Status LaunchMma(CudaDevice& device, const Parts& parts, const Problem& problem,
                       int n_kv_heads, Kernels kernels) {
  using Scorer = MmaScorer<kVectors>;
  if constexpr (kVectors <= 4) {
    // As many as one read of the keys pays for: then tensor cores take longer than it.
    using Wide = WideMmaScorer<kVectors, 16 / kVectors>;
    if (problem.n_queries * problem.group > Scorer::kRows) {
      return Launch<Wide, Scorer>(device, parts, problem, n_kv_heads, kernels);
    }
  }
  return Launch<Scorer, Scorer>(device, parts, problem, n_kv_heads, kernels);
}

bool AreAligned(const Parts& parts, int head_dim, int elements, int element_bytes) {
  if (head_dim % elements != 0) return false;
  for (int p = 0; p < parts.n_parts; ++p) {
    const Part& part = parts.part[p];
    if (reinterpret_cast<uintptr_t>(part.keys) % (elements * element_bytes) != 0) return false;
    if (part.key_stride % elements != 0) return false;
  }
  return true;
}

absl::Status LaunchForDims(CudaDevice& device, bool in_bf16, const Parts& parts,
                           const Problem& problem, int n_kv_heads, Kernels kernels) {
  const int d = problem.head_dim;
  if (d > 256) {
    return absl::UnimplementedError(
        StrCat("MemoryAttention: heads of ", d, " dimensions, want at most 256 on a GPU"));
  }
  if (in_bf16) {
    using T = __nv_bfloat16;
    if (AreAligned(parts, d, 8, sizeof(T))) {
      if (d <= 64) return LaunchMma<2>(device, parts, problem, n_kv_heads, kernels);
      if (d <= 128) return LaunchMma<4>(device, parts, problem, n_kv_heads, kernels);
      return LaunchMma<8>(device, parts, problem, n_kv_heads, kernels);
    }
    if (AreAligned(parts, d, 4, sizeof(T)) && d <= 128) {
      return LaunchSimd<T, 4, 4>(device, parts, problem, n_kv_heads, kernels);
    }
    return LaunchSimd<T, 1, 32>(device, parts, problem, n_kv_heads, kernels);
  }
  if (AreAligned(parts, d, 4, sizeof(float))) {
    if (d <= 64) return LaunchSimd<float, 4, 2>(device, parts, problem, n_kv_heads, kernels);
    if (d <= 128) return LaunchSimd<float, 4, 4>(device, parts, problem, n_kv_heads, kernels);
  }
  return LaunchSimd<float, 1, 32>(device, parts, problem, n_kv_heads, kernels);
}

// Small tiles where many of them are read twice; else so that the warps of the scan, each with a
// whole number of tiles, end together, if a block can keep the maxima in registers.
int ChooseTileSteps(const CudaDevice& device, int64_t n_tokens, int64_t n_kv_heads, int top_k) {
  if (top_k > 64) return 2;
  const int64_t n_warps =
      std::max<int64_t>(1, 2 * device.n_multiprocessors() * kScanWarps / n_kv_heads);
  int best = kMaxTileSteps;
  int64_t fewest = INT64_MAX;
  for (int steps = 2; steps <= kMaxTileSteps; ++steps) {
    const int64_t n_tiles = (n_tokens + steps * kStepKeys - 1) / (steps * kStepKeys);
    if (n_tiles > kKeptMaxima * kSelectThreads) continue;
    const int64_t n_steps = (n_tiles + n_warps - 1) / n_warps * steps;
    if (n_steps > fewest) continue;  // of equal ones the largest: fewer maxima
    fewest = n_steps;
    best = steps;
  }
  return best;
}

}  // namespace

absl::Status LaunchKeyScan(CudaDevice& device, DType dtype, const Parts& parts,
                           const Problem& problem, int n_kv_heads) {
  return LaunchForDims(device, dtype == DType::kBF16, parts, problem, n_kv_heads, Kernels::kScan);
}

absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t n_kv_heads = args.parts[0].keys.dim(0);
  Parts parts = {};
  int64_t n_tokens = 0;
  for (const MemoryPart& part : args.parts) n_tokens += part.keys.dim(1);
  parts.tile_keys = ChooseTileSteps(cuda, n_tokens, n_kv_heads, args.top_k) * kStepKeys;
  int64_t n_positions = 0;
  for (const MemoryPart& part : args.parts) {
    AddPart(part, n_positions, &parts);
    n_positions += part.keys.dim(1);
  }
  const Problem problem{
      .queries = args.queries.As<float>(),
      .n_queries = static_cast<int>(args.queries.dim(0)),
      .n_heads = static_cast<int>(n_heads),
      .group = static_cast<int>(n_heads / n_kv_heads),
      .head_dim = static_cast<int>(args.queries.dim(2)),
      .top_k = args.top_k,
      .scale = args.scale,
      .maxima = nullptr,
      .maxima_per_row = parts.n_tiles,
      .candidates = nullptr,
      .candidates_per_row =
          int64_t{std::min(args.top_k, std::max(parts.n_tiles, 1))} * parts.tile_keys,
      .extra = nullptr,
      .extra_per_row = 0,
      .output = args.output.As<float>(),
      .lse = args.lse.As<float>(),
      .positions = args.positions,
      .scores = args.scores};
  return ForQueriesThatFit(cuda, problem, [&](const Problem& some) {
    return LaunchForDims(cuda, args.parts[0].keys.dtype() == DType::kBF16, parts, some,
                         static_cast<int>(n_kv_heads), Kernels::kScanAndAttend);
  });
}

}  // namespace fovea::compute::cuda
