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
// scores_simd.cuh for any type and shape, scores_mma.cuh for bfloat16 keys on tensor cores.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/scores_mma.cuh"
#include "compute/cuda/scores_simd.cuh"
#include "compute/cuda/select.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kScanWarps = 8;     // of a block of the scan, at most
constexpr int kMaxTileSteps = 8;  // of a tile: 256 keys

// What a query head may select from; tiles count through the parts, none spans two.
struct Part {
  const void* keys;
  const void* values;
  int64_t key_stride, value_stride;  // elements between KV heads
  const uint64_t* allowed;
  int64_t first_position;
  int n_tokens;
  int first_tile;
};
struct Parts {
  Part part[kMaxMemoryParts];
  int n_parts;
  int n_tiles;     // of a KV head
  int tile_steps;  // kStepKeys keys each
};
struct Problem {
  const float* queries;  // [n_queries, n_heads, head_dim]
  int n_queries, n_heads, group, head_dim;
  int top_k;
  float scale;
  float* maxima;         // [n_queries · n_heads, n_tiles]
  uint64_t* candidates;  // [n_queries · n_heads, top_k · keys of a tile]
  int64_t candidates_per_row;
  float* output;
  float* lse;
  int64_t* positions;  // or null
  float* scores;       // or null
};

__device__ inline const Part& PartOfTile(const Parts& parts, int tile) {
  int p = 0;
  while (p + 1 < parts.n_parts && tile >= parts.part[p + 1].first_tile) ++p;
  return parts.part[p];
}

// Whether a lane's key of a step may be selected.
__device__ inline bool IsAllowed(const Part& part, int64_t key) {
  return key < part.n_tokens &&
         (part.allowed == nullptr || (part.allowed[key / 64] >> (key % 64) & 1) != 0);
}

// Of a row of a KV head: its number among [n_queries · n_heads].
__device__ inline int64_t QueryHead(const Problem& problem, int kv_head, int row) {
  return static_cast<int64_t>(row / problem.group) * problem.n_heads + kv_head * problem.group +
         row % problem.group;
}
// Its query; of rows beyond the last that one's.
__device__ inline const float* QueryOf(const Problem& problem, int kv_head, int row) {
  const int last = problem.n_queries * problem.group - 1;
  return problem.queries + QueryHead(problem, kv_head, min(row, last)) * problem.head_dim;
}

// A step of a tile, in the order in which a warp of the scan goes through them.
struct Step {
  int tile;
  int step = 0;
  __device__ int64_t First(const Parts& parts, const Part& part) const {
    return (static_cast<int64_t>(tile - part.first_tile) * parts.tile_steps + step) * kStepKeys;
  }
  // true: the step was the last of its tile.
  __device__ bool Advance(const Parts& parts, int stride) {
    const Part& part = PartOfTile(parts, tile);
    ++step;
    if (step < parts.tile_steps && First(parts, part) < part.n_tokens) return false;
    step = 0;
    tile += stride;
    return true;
  }
};

// blockIdx.y: KV head; blockIdx.z: kRows of its rows (query · group + head of the group). A warp a
// tile, with the stride of the grid. Dynamic shared memory: kSharedBytes a warp.
template <typename Scorer>
__global__ void __launch_bounds__(kScanWarps* kWarpSize)
    ScanKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  extern __shared__ uint4 shared[];
  AllowNextKernel();
  AwaitKernelBefore();
  using Element = typename Scorer::Element;
  const int kv_head = blockIdx.y;
  const int n_rows = problem.n_queries * problem.group;
  const int row0 = blockIdx.z * Scorer::kRows;
  const int n_warps = blockDim.x / kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int stride = gridDim.x * n_warps;
  const Scorer scorer([&](int r) { return QueryOf(problem, kv_head, row0 + r); }, problem.head_dim);
  typename Scorer::Pipeline pipeline(
      scorer, reinterpret_cast<std::byte*>(shared) + warp * Scorer::kSharedBytes);
  Step ahead{static_cast<int>(blockIdx.x) * n_warps + warp};
  Step current = ahead;
  const auto read_ahead = [&] {
    if (ahead.tile >= parts.n_tiles) return pipeline.NextIsNone();
    const Part& part = PartOfTile(parts, ahead.tile);
    pipeline.Next(static_cast<const Element*>(part.keys) + kv_head * part.key_stride,
                  ahead.First(parts, part), part.n_tokens);
    ahead.Advance(parts, stride);
  };
  for (int i = 0; i < Scorer::Pipeline::kDepth; ++i) read_ahead();
  typename Scorer::Best best;
  while (current.tile < parts.n_tiles) {
    const auto scores = pipeline.Take();
    read_ahead();
    const Part& part = PartOfTile(parts, current.tile);
    const int64_t first = current.First(parts, part);
    if (part.allowed == nullptr && first + kStepKeys <= part.n_tokens) {
      best.Update(scores, [](int) { return true; });
    } else {
      best.Update(scores, [&](int i) { return IsAllowed(part, first + i); });
    }
    const int tile = current.tile;
    if (!current.Advance(parts, stride)) continue;
    best.Finish([&](int r, float maximum) {
      if (row0 + r >= n_rows) return;
      problem.maxima[QueryHead(problem, kv_head, row0 + r) * parts.n_tiles + tile] = maximum;
    });
    best = typename Scorer::Best();
  }
}

// A block a query head.
template <typename Scorer>
__global__ void __launch_bounds__(kSelectThreads)
    AttendKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  __shared__ Selection selection;
  __shared__ int n_candidates;
  __shared__ int tiles[kMaxMemoryTopK];
  __shared__ uint64_t sorted[kMaxSorted];
  __shared__ float weights[kMaxMemoryTopK];
  __shared__ float sums[kSelectThreads];
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
  const float* const maxima = problem.maxima + row * parts.n_tiles;
  uint64_t* const candidates = problem.candidates + row * problem.candidates_per_row;
  if (threadIdx.x == 0) n_candidates = 0;
  AwaitKernelBefore();

  // The tiles that hold the top k, and what a score must reach.
  int n_tiles = parts.n_tiles;
  float threshold = -INFINITY;
  if (n_tiles > problem.top_k) {
    const int n_collected = CollectGreatest(
        n_tiles, problem.top_k, [&](int i) { return maxima[i]; }, sorted, &selection);
    n_tiles = problem.top_k;
    if (n_collected >= 0) {
      SortItems(sorted, n_collected);
      for (int i = threadIdx.x; i < n_tiles; i += blockDim.x) {
        tiles[i] = static_cast<int>(~static_cast<uint32_t>(sorted[i]));
      }
      threshold = FromOrdered(static_cast<uint32_t>(sorted[n_tiles - 1] >> 32));
    } else {
      const auto at = [&](int64_t i) { return Ordered(maxima[i]); };
      int n_tied = 0;
      const uint32_t kth =
          SelectKth<uint32_t>(parts.n_tiles, problem.top_k, at, &selection, &n_tied);
      Compact(
          parts.n_tiles, problem.top_k - n_tied, n_tied, [&](int64_t i) { return at(i) > kth; },
          [&](int64_t i) { return at(i) == kth; },
          [&](int place, int64_t i) { tiles[place] = static_cast<int>(i); }, &selection);
      threshold = FromOrdered(kth);
    }
  } else {
    for (int i = threadIdx.x; i < n_tiles; i += blockDim.x) tiles[i] = i;
  }
  __syncthreads();

  // Their keys again. What is found goes to shared memory, and where that is full, all of it is in
  // global memory.
  for (int step = warp; step < n_tiles * parts.tile_steps; step += kWarps) {
    const int tile = tiles[step / parts.tile_steps];
    const Part& part = PartOfTile(parts, tile);
    const int64_t first = Step{tile, step % parts.tile_steps}.First(parts, part);
    if (first >= part.n_tokens) continue;
    const auto scores = scorer.ScoreStep(
        static_cast<const Element*>(part.keys) + kv_head * part.key_stride, first, part.n_tokens);
    const float score = scores.OfRow(kv_row - row0);
    const bool enters = IsAllowed(part, first + lane) && score >= threshold && score > -INFINITY;
    const unsigned entering = __ballot_sync(kAllLanes, enters);
    if (entering == 0) continue;
    int place = 0;
    if (lane == 0) place = atomicAdd(&n_candidates, __popc(entering));
    place = __shfl_sync(kAllLanes, place, 0) + __popc(entering & ((1u << lane) - 1));
    if (enters) {
      const uint64_t found = Pack(score, static_cast<uint32_t>(part.first_position + first + lane));
      candidates[place] = found;
      if (place < kMaxSorted) sorted[place] = found;
    }
  }
  __syncthreads();

  // The top k of them, best first. Where they came from one place to another differs from run to
  // run; what is kept and its order do not.
  const int n_found = n_candidates;
  const int n_kept = min(n_found, problem.top_k);
  if (n_found > kMaxSorted) {
    int n_tied = 0;
    const auto at = [&](int64_t i) { return candidates[i]; };
    const uint64_t kth = SelectKth<uint64_t>(n_found, problem.top_k, at, &selection, &n_tied);
    Compact(
        n_found, problem.top_k, 0, [&](int64_t i) { return at(i) >= kth; },
        [](int64_t) { return false; }, [&](int place, int64_t i) { sorted[place] = at(i); },
        &selection);
  }
  SortItems(sorted, n_found > kMaxSorted ? problem.top_k : n_found);

  // One softmax over what was kept.
  const auto score_of = [&](int j) { return FromOrdered(static_cast<uint32_t>(sorted[j] >> 32)); };
  const float high = n_kept > 0 ? score_of(0) * problem.scale : 0.0f;
  float own = 0.0f;
  for (int j = threadIdx.x; j < n_kept; j += blockDim.x) {
    weights[j] = expf(score_of(j) * problem.scale - high);
    own += weights[j];
  }
  const float sum = BlockSum(own, sums);
  __syncthreads();
  if (threadIdx.x == 0) problem.lse[row] = n_kept > 0 ? high + logf(sum) : -INFINITY;
  for (int j = threadIdx.x; j < problem.top_k; j += blockDim.x) {
    const int64_t at = row * problem.top_k + j;
    if (problem.positions != nullptr) {
      problem.positions[at] =
          j < n_kept ? static_cast<int64_t>(~static_cast<uint32_t>(sorted[j])) : -1;
    }
    if (problem.scores != nullptr && j < n_kept) problem.scores[at] = score_of(j);
  }

  // Values: threads of a stripe share a kept key, and stripes their sums at the end.
  const int width = problem.head_dim;
  const int n_stripes = kSelectThreads / width;
  const int stripe = threadIdx.x / width;
  const int dim = threadIdx.x % width;
  float total = 0.0f;
  if (stripe < n_stripes) {
    for (int j = stripe; j < n_kept; j += n_stripes) {
      int64_t position = static_cast<int64_t>(~static_cast<uint32_t>(sorted[j]));
      int p = 0;
      while (p + 1 < parts.n_parts && position >= parts.part[p + 1].first_position) ++p;
      const Part& part = parts.part[p];
      position -= part.first_position;
      const auto* const values =
          static_cast<const Element*>(part.values) + kv_head * part.value_stride;
      total += weights[j] * ToFloat(values[position * problem.head_dim + dim]);
    }
  }
  sums[threadIdx.x] = total;
  __syncthreads();
  if (stripe == 0) {
    for (int s = 1; s < n_stripes; ++s) total += sums[s * width + dim];
    problem.output[row * problem.head_dim + dim] = n_kept > 0 ? total / sum : 0.0f;
  }
}

// Shared memory that a block may take, in warps of the scan.
template <typename Scorer>
absl::StatusOr<int> WarpsOfScan(const CudaDevice& device) {
  int most = kScanWarps;
  if constexpr (Scorer::kSharedBytes > 0) {
    most = std::min(most, device.max_shared_bytes() / Scorer::kSharedBytes);
  }
  RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(ScanKernel<Scorer>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           most * Scorer::kSharedBytes),
      "MemoryAttention");
  return most;
}

template <typename Scorer>
absl::Status LaunchScan(CudaDevice& device, const Parts& parts, const Problem& problem,
                        int n_kv_heads) {
  if (parts.n_tiles == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int n_warps, WarpsOfScan<Scorer>(device));
  const int shared_bytes = n_warps * Scorer::kSharedBytes;
  int blocks_per_multiprocessor = 0;
  RETURN_IF_CUDA_ERROR(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_per_multiprocessor, ScanKernel<Scorer>,
                                                    n_warps * kWarpSize, shared_bytes),
      "MemoryAttention");
  // The whole GPU once for each run of rows, or as many blocks as there are tiles for.
  const int all = std::max(1, blocks_per_multiprocessor * device.n_multiprocessors());
  const int wanted = (parts.n_tiles + n_warps - 1) / n_warps;
  const int across = std::clamp(all / n_kv_heads, 1, wanted);
  const int n_rows = problem.n_queries * problem.group;
  const dim3 grid(static_cast<unsigned>(across), static_cast<unsigned>(n_kv_heads),
                  static_cast<unsigned>((n_rows + Scorer::kRows - 1) / Scorer::kRows));
  return LaunchDependent(device, "MemoryAttention", ScanKernel<Scorer>, grid, n_warps * kWarpSize,
                         static_cast<size_t>(shared_bytes), parts, problem);
}

template <typename Scorer>
absl::Status LaunchAttend(CudaDevice& device, const Parts& parts, const Problem& problem) {
  return LaunchDependent(device, "MemoryAttention", AttendKernel<Scorer>,
                         dim3(static_cast<unsigned>(problem.n_queries * problem.n_heads)),
                         kSelectThreads, 0, parts, problem);
}

template <typename Scan, typename Attend>
absl::Status Launch(CudaDevice& device, const Parts& parts, const Problem& problem,
                    int n_kv_heads) {
  RETURN_IF_ERROR(LaunchScan<Scan>(device, parts, problem, n_kv_heads));
  return LaunchAttend<Attend>(device, parts, problem);
}

// As many rows of the scan as registers hold beside eight keys' elements.
template <typename T, int kVector, int kVectors>
absl::Status LaunchSimd(CudaDevice& device, const Parts& parts, const Problem& problem,
                        int n_kv_heads) {
  using One = SimdScorer<T, kVector, kVectors, 1>;
  constexpr int kMost = One::kDims <= 8 ? 4 : One::kDims <= 16 ? 2 : 1;
  if (problem.n_queries * problem.group > 1 && kMost > 1) {
    using Most = SimdScorer<T, kVector, kVectors, kMost>;
    return Launch<Most, One>(device, parts, problem, n_kv_heads);
  }
  return Launch<One, One>(device, parts, problem, n_kv_heads);
}

template <int kVectors>
absl::Status LaunchMma(CudaDevice& device, const Parts& parts, const Problem& problem,
                       int n_kv_heads) {
  using Scorer = MmaScorer<kVectors>;
  return Launch<Scorer, Scorer>(device, parts, problem, n_kv_heads);
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
                           const Problem& problem, int n_kv_heads) {
  const int d = problem.head_dim;
  if (d > 256) {
    return absl::UnimplementedError(
        StrCat("MemoryAttention: heads of ", d, " dimensions, want at most 256 on a GPU"));
  }
  if (in_bf16) {
    using T = __nv_bfloat16;
    if (AreAligned(parts, d, 8, sizeof(T))) {
      if (d <= 64) return LaunchMma<2>(device, parts, problem, n_kv_heads);
      if (d <= 128) return LaunchMma<4>(device, parts, problem, n_kv_heads);
      return LaunchMma<8>(device, parts, problem, n_kv_heads);
    }
    if (AreAligned(parts, d, 4, sizeof(T)) && d <= 128) {
      return LaunchSimd<T, 4, 4>(device, parts, problem, n_kv_heads);
    }
    return LaunchSimd<T, 1, 32>(device, parts, problem, n_kv_heads);
  }
  if (AreAligned(parts, d, 4, sizeof(float))) {
    if (d <= 64) return LaunchSimd<float, 4, 2>(device, parts, problem, n_kv_heads);
    if (d <= 128) return LaunchSimd<float, 4, 4>(device, parts, problem, n_kv_heads);
  }
  return LaunchSimd<float, 1, 32>(device, parts, problem, n_kv_heads);
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

absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t n_kv_heads = args.parts[0].keys.dim(0);
  Parts parts = {};
  int64_t n_tokens = 0;
  for (const MemoryPart& part : args.parts) n_tokens += part.keys.dim(1);
  parts.tile_steps = ChooseTileSteps(cuda, n_tokens, n_kv_heads, args.top_k);
  const int tile_keys = parts.tile_steps * kStepKeys;
  int64_t n_positions = 0;
  for (const MemoryPart& part : args.parts) {
    const int64_t n = part.keys.dim(1);
    if (n > 0) {
      parts.part[parts.n_parts++] = {.keys = part.keys.data(),
                                     .values = part.values.data(),
                                     .key_stride = part.keys.stride(0),
                                     .value_stride = part.values.stride(0),
                                     .allowed = part.allowed,
                                     .first_position = n_positions,
                                     .n_tokens = static_cast<int>(n),
                                     .first_tile = parts.n_tiles};
      parts.n_tiles += static_cast<int>((n + tile_keys - 1) / tile_keys);
    }
    n_positions += n;
  }
  // Queries whose maxima and candidates take no more than this at a time.
  constexpr int64_t kScratchBytes = int64_t{512} << 20;
  const int64_t candidates_per_row =
      int64_t{std::min(args.top_k, std::max(parts.n_tiles, 1))} * tile_keys;
  const int64_t row_bytes = candidates_per_row * static_cast<int64_t>(sizeof(uint64_t)) +
                            parts.n_tiles * static_cast<int64_t>(sizeof(float));
  const int64_t queries_at_once =
      std::clamp<int64_t>(kScratchBytes / (row_bytes * n_heads), 1, args.queries.dim(0));
  const int64_t rows_at_once = queries_at_once * n_heads;
  ASSIGN_OR_RETURN(std::byte* const scratch,
                   cuda.Scratch(static_cast<size_t>(rows_at_once * row_bytes)));
  for (int64_t begin = 0; begin < args.queries.dim(0); begin += queries_at_once) {
    const int64_t n = std::min(queries_at_once, args.queries.dim(0) - begin);
    const int64_t row = begin * n_heads;
    const Problem problem{
        .queries = args.queries.As<float>() + row * head_dim,
        .n_queries = static_cast<int>(n),
        .n_heads = static_cast<int>(n_heads),
        .group = static_cast<int>(n_heads / n_kv_heads),
        .head_dim = static_cast<int>(head_dim),
        .top_k = args.top_k,
        .scale = args.scale,
        .maxima = reinterpret_cast<float*>(scratch + rows_at_once * candidates_per_row *
                                                         static_cast<int64_t>(sizeof(uint64_t))),
        .candidates = reinterpret_cast<uint64_t*>(scratch),
        .candidates_per_row = candidates_per_row,
        .output = args.output.As<float>() + row * head_dim,
        .lse = args.lse.As<float>() + row,
        .positions = args.positions != nullptr ? args.positions + row * args.top_k : nullptr,
        .scores = args.scores != nullptr ? args.scores + row * args.top_k : nullptr};
    RETURN_IF_ERROR(LaunchForDims(cuda, args.parts[0].keys.dtype() == DType::kBF16, parts, problem,
                                  static_cast<int>(n_kv_heads)));
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
