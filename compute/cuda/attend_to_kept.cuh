// The second half of both attentions to a memory: a block of kSelectThreads, for one query head,
// finds the tiles of a scan that hold the best keys, and attends to the keys that it is given.
#pragma once

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/memory_parts.cuh"
#include "compute/cuda/select.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

struct AttendShared {
  Selection selection;
  uint64_t sorted[kMaxSorted];
  float weights[kMaxMemoryTopK];
  float sums[kSelectThreads];
};

// Tiles that hold the k best keys, tiles = [k], and what the score of such a key is at least.
struct BestTiles {
  int n_tiles;
  float threshold;
};
__device__ inline BestTiles FindBestTiles(const float* maxima, int n_tiles, int k, int* tiles,
                                          AttendShared* shared) {
  BestTiles best{n_tiles, -INFINITY};
  if (n_tiles <= k) {
    for (int i = threadIdx.x; i < n_tiles; i += blockDim.x) tiles[i] = i;
    __syncthreads();
    return best;
  }
  best.n_tiles = k;
  const int n_collected = CollectGreatest(
      n_tiles, k, [&](int i) { return maxima[i]; }, shared->sorted, &shared->selection);
  if (n_collected >= 0) {
    SortItems(shared->sorted, n_collected);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
      tiles[i] = static_cast<int>(~static_cast<uint32_t>(shared->sorted[i]));
    }
    best.threshold = FromOrdered(static_cast<uint32_t>(shared->sorted[k - 1] >> 32));
  } else {
    const auto at = [&](int64_t i) { return Ordered(maxima[i]); };
    int n_tied = 0;
    const uint32_t kth = SelectKth<uint32_t>(n_tiles, k, at, &shared->selection, &n_tied);
    Compact(
        n_tiles, k - n_tied, n_tied, [&](int64_t i) { return at(i) > kth; },
        [&](int64_t i) { return at(i) == kth; },
        [&](int place, int64_t i) { tiles[place] = static_cast<int>(i); }, &shared->selection);
    best.threshold = FromOrdered(kth);
  }
  __syncthreads();
  return best;
}

// weights = [n_kept]: e^(scale · score_of(j) − high). All threads get their sum. sums:
// [kSelectThreads].
template <typename ScoreOf>
__device__ inline float KeptWeights(int n_kept, float scale, float high, ScoreOf score_of,
                                    float* weights, float* sums) {
  float own = 0.0f;
  for (int j = threadIdx.x; j < n_kept; j += blockDim.x) {
    weights[j] = expf(score_of(j) * scale - high);
    own += weights[j];
  }
  return BlockSum(own, sums);
}

// output = [head_dim]: the values that value_of(j) names, by their weights, whose sum this is.
// After a __syncthreads(). Threads of a stripe share a kept key, and stripes their sums at the end.
template <typename ValueOf>
__device__ inline void AddKeptValues(int n_kept, int head_dim, float sum, const float* weights,
                                     ValueOf value_of, float* sums, float* output) {
  const int n_stripes = kSelectThreads / head_dim;
  const int stripe = threadIdx.x / head_dim;
  const int dim = threadIdx.x % head_dim;
  float total = 0.0f;
  if (stripe < n_stripes) {
    for (int j = stripe; j < n_kept; j += n_stripes)
      total += weights[j] * ToFloat(value_of(j)[dim]);
  }
  sums[threadIdx.x] = total;
  __syncthreads();
  if (stripe == 0) {
    for (int s = 1; s < n_stripes; ++s) total += sums[s * head_dim + dim];
    output[dim] = n_kept > 0 ? total / sum : 0.0f;
  }
}

// The value at a position of a KV head; null: its part has none.
template <typename Element>
__device__ inline const Element* ValueAt(const Parts& parts, int64_t position, int kv_head,
                                         int head_dim) {
  const Part& part = parts.part[PartOfPosition(parts, position)];
  if (part.values == nullptr) return nullptr;
  return static_cast<const Element*>(part.values) + kv_head * part.value_stride +
         (position - part.first_position) * head_dim;
}

// Attends to the top k of n_found candidates (Pack), which shared->sorted holds, or, where they are
// more than kMaxSorted, `candidates`. Where they came from one place to another differs from run to
// run; what is kept and its order do not. Called by all threads after a __syncthreads().
template <typename Element>
__device__ inline void AttendToKept(const Parts& parts, const Problem& problem, int64_t row,
                                    int kv_head, int n_found, const uint64_t* candidates,
                                    AttendShared* shared) {
  uint64_t* const sorted = shared->sorted;
  const int n_kept = min(n_found, problem.top_k);
  if (n_found > kMaxSorted) {
    int n_tied = 0;
    // Other blocks may have written them.
    const auto at = [&](int64_t i) { return __ldcg(candidates + i); };
    const uint64_t kth =
        SelectKth<uint64_t>(n_found, problem.top_k, at, &shared->selection, &n_tied);
    Compact(
        n_found, problem.top_k, 0, [&](int64_t i) { return at(i) >= kth; },
        [](int64_t) { return false; }, [&](int place, int64_t i) { sorted[place] = at(i); },
        &shared->selection);
  }
  SortItems(sorted, n_found > kMaxSorted ? problem.top_k : n_found);

  // One softmax over what was kept.
  const auto score_of = [&](int j) { return FromOrdered(static_cast<uint32_t>(sorted[j] >> 32)); };
  const auto position_of = [&](int j) {
    return static_cast<int64_t>(~static_cast<uint32_t>(sorted[j]));
  };
  const float high = n_kept > 0 ? score_of(0) * problem.scale : 0.0f;
  const float sum =
      KeptWeights(n_kept, problem.scale, high, score_of, shared->weights, shared->sums);
  __syncthreads();
  if (threadIdx.x == 0) problem.lse[row] = n_kept > 0 ? high + logf(sum) : -INFINITY;
  for (int j = threadIdx.x; j < problem.top_k; j += blockDim.x) {
    const int64_t at = row * problem.top_k + j;
    if (problem.positions != nullptr) problem.positions[at] = j < n_kept ? position_of(j) : -1;
    if (problem.scores != nullptr && j < n_kept) problem.scores[at] = score_of(j);
  }

  if (problem.output == nullptr) return;
  AddKeptValues(
      n_kept, problem.head_dim, sum, shared->weights,
      [&](int j) { return ValueAt<Element>(parts, position_of(j), kv_head, problem.head_dim); },
      shared->sums, problem.output + row * problem.head_dim);
}

// How a scan of a memory is launched: a warp a tile. Shared memory is that of its warps, and
// block_shared_bytes.
template <typename Kernel>
absl::Status ScanGrid(const CudaDevice& device, Kernel kernel, int shared_bytes_per_warp,
                      int max_warps, int n_tiles, int n_kv_heads, int n_row_groups, dim3* grid,
                      int* n_warps, int block_shared_bytes = 0) {
  *n_warps = max_warps;
  if (shared_bytes_per_warp > 0) {
    cudaFuncAttributes attributes;
    RETURN_IF_CUDA_ERROR(cudaFuncGetAttributes(&attributes, kernel), "MemoryAttention");
    const int most = device.max_shared_bytes() - static_cast<int>(attributes.sharedSizeBytes) -
                     block_shared_bytes;
    *n_warps = std::min(max_warps, most / shared_bytes_per_warp);
  }
  const int shared_bytes = block_shared_bytes + *n_warps * shared_bytes_per_warp;
  RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
      "MemoryAttention");
  int blocks_per_multiprocessor = 0;
  RETURN_IF_CUDA_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                           &blocks_per_multiprocessor, kernel, *n_warps * kWarpSize, shared_bytes),
                       "MemoryAttention");
  // The whole GPU once for each run of rows, or as many blocks as there are tiles for.
  const int all = std::max(1, blocks_per_multiprocessor * device.n_multiprocessors());
  const int wanted = (n_tiles + *n_warps - 1) / *n_warps;
  *grid = dim3(static_cast<unsigned>(std::clamp(all / n_kv_heads, 1, wanted)),
               static_cast<unsigned>(n_kv_heads), static_cast<unsigned>(n_row_groups));
  return absl::OkStatus();
}

// Queries whose maxima and candidates take no more than this at a time.
inline constexpr int64_t kMemoryScratchBytes = int64_t{512} << 20;

// Runs launch(problem) for as many queries at a time as have room; problem has the queries and
// outputs of all, n_tiles and candidates_per_row. Errors of `launch`, and ResourceExhausted.
template <typename Launch>
absl::Status ForQueriesThatFit(CudaDevice& device, Problem all, Launch launch) {
  // What lies behind them is aligned to 16 bytes, however many heads there are.
  all.candidates_per_row += all.candidates_per_row % 2;
  const int64_t candidate_bytes = all.candidates_per_row * static_cast<int64_t>(sizeof(uint64_t));
  const int64_t row_bytes = candidate_bytes + all.extra_per_row +
                            all.maxima_per_row * static_cast<int64_t>(sizeof(float));
  const int64_t at_once =
      std::clamp<int64_t>(kMemoryScratchBytes / (row_bytes * all.n_heads), 1, all.n_queries);
  ASSIGN_OR_RETURN(std::byte* const scratch,
                   device.Scratch(static_cast<size_t>(at_once * all.n_heads * row_bytes)));
  for (int64_t begin = 0; begin < all.n_queries; begin += at_once) {
    const int64_t row = begin * all.n_heads;
    Problem problem = all;
    problem.n_queries = static_cast<int>(std::min(at_once, all.n_queries - begin));
    problem.first_query = static_cast<int>(begin);
    problem.n_all_queries = all.n_queries;
    problem.queries += row * all.head_dim;
    problem.candidates = reinterpret_cast<uint64_t*>(scratch);
    problem.extra = scratch + at_once * all.n_heads * candidate_bytes;
    problem.maxima = reinterpret_cast<float*>(scratch + at_once * all.n_heads *
                                                            (candidate_bytes + all.extra_per_row));
    if (problem.output != nullptr) problem.output += row * all.head_dim;
    problem.lse += row;
    if (problem.positions != nullptr) problem.positions += row * all.top_k;
    if (problem.scores != nullptr) problem.scores += row * all.top_k;
    RETURN_IF_ERROR(launch(problem));
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
