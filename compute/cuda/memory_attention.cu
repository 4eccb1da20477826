// Exact attention to the top k of millions of keys, at about the time that reading them takes.
//
// There is no matrix of scores, and nothing is kept sorted while keys are read. A *tile* is a run of
// up to 256 keys of a KV head. The first kernel reads every key once for all query heads of its
// group and stores nothing but the best score of each tile. The k-th best of these maxima, T, is at
// most the k-th best score, since k tiles have a key that is as good; so all of the top k lie in the
// k tiles with the best maxima (of equal ones the first: as many keys of score T as tiles of maximum
// T are needed, and those of the first tiles come first). The second kernel, a block for each query
// head, finds these tiles, scores their keys again by the same sums, keeps what reaches T, sorts it,
// and attends to its values. Any order of keys and any scores are exact; the cost beside the reading
// is that of k tiles.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/ops.h"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kLanes = 8;                         // that share a key: a *team*
constexpr int kStepKeys = kWarpSize;              // keys of a warp's step: eight of each team
constexpr int kScanWarps = 8;                     // of a block of the scan
constexpr int kMaxTileSteps = 8;                  // of a tile: 256 keys
constexpr int kMaxAttendThreads = 1024;           // of a block of the second kernel
constexpr int kMaxSorted = 2048;                  // that are sorted in shared memory

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

// The elements of a key or value that a lane of a team reads: vector v = lane + 8·i of kVector.
template <typename T, int kVector>
struct alignas(sizeof(T) * kVector) Vector {
  T values[kVector];
};
__device__ inline float ToFloat(float value) { return value; }
__device__ inline float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T, int kVector, int kVectors>
struct Layout {
  static constexpr int kDims = kVector * kVectors;
  // Of a block of the second kernel: as many as there are registers for.
  static constexpr int kAttendThreads = kDims <= 8 ? kMaxAttendThreads : kMaxAttendThreads / 2;
  using Element = T;
  using Loaded = Vector<T, kVector>;

  static __device__ void LoadQuery(const float* from, int head_dim, int lane, float* to) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kLanes;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        to[v * kVector + i] =
            vector * kVector < head_dim ? from[vector * kVector + i] : 0.0f;
      }
    }
  }
};

// Scores of a step's 32 keys with kRows queries: lane l of team t ends with those of key 8·t + l.
// Each team reads eight keys; each lane sums its dimensions of all eight, and the lanes' sums are
// added crosswise: with every exchange a lane keeps half of the keys. The order of the additions
// depends on nothing, so that a key has one score whoever computes it.
template <typename L, int kRows>
__device__ inline void ScoreStep(const typename L::Element* keys, int64_t first, int64_t end,
                                 int head_dim, const float (&query)[kRows][L::kDims],
                                 float (&score)[kRows]) {
  const int lane = threadIdx.x % kLanes;
  const int team = threadIdx.x % kWarpSize / kLanes;
  constexpr int kVector = sizeof(typename L::Loaded) / sizeof(typename L::Element);
  constexpr int kVectors = L::kDims / kVector;
  typename L::Loaded loaded[kLanes][kVectors];
#pragma unroll
  for (int j = 0; j < kLanes; ++j) {
    const int64_t key = min(first + team * kLanes + j, end - 1);  // one that is there
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kLanes;
      const int at = vector * kVector < head_dim ? vector * kVector : 0;  // the query has zeros
      loaded[j][v] =
          *reinterpret_cast<const typename L::Loaded*>(keys + key * head_dim + at);
    }
  }
  float sums[kRows][kLanes];
#pragma unroll
  for (int j = 0; j < kLanes; ++j) {
    float values[L::kDims];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) values[v * kVector + i] = ToFloat(loaded[j][v].values[i]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < L::kDims; ++i) sum = fmaf(query[r][i], values[i], sum);
      sums[r][j] = sum;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int half = kLanes / 2; half > 0; half /= 2) {
      const bool upper = (lane & half) != 0;
#pragma unroll
      for (int j = 0; j < half; ++j) {
        const float kept = upper ? sums[r][j + half] : sums[r][j];
        const float given = upper ? sums[r][j] : sums[r][j + half];
        sums[r][j] = kept + __shfl_xor_sync(kAllLanes, given, half);
      }
    }
    score[r] = sums[r][0];
  }
}

// Whether a lane's key of a step may be selected.
__device__ inline bool IsAllowed(const Part& part, int64_t key) {
  return key < part.n_tokens &&
         (part.allowed == nullptr || (part.allowed[key / 64] >> (key % 64) & 1) != 0);
}

// blockIdx.y: KV head; blockIdx.z: kRows of its rows (query · group + head of the group). A warp a
// tile, with the stride of the grid.
template <typename L, int kRows>
__global__ void __launch_bounds__(kScanWarps* kWarpSize)
    ScanKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  const int kv_head = blockIdx.y;
  const int n_rows = problem.n_queries * problem.group;
  const int row0 = blockIdx.z * kRows;
  const int lane = threadIdx.x % kWarpSize;
  // Of a row: its number among [n_queries · n_heads].
  const auto query_head = [&](int row) {
    return static_cast<int64_t>(row / problem.group) * problem.n_heads + kv_head * problem.group +
           row % problem.group;
  };
  float query[kRows][L::kDims];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    L::LoadQuery(problem.queries + query_head(min(row0 + r, n_rows - 1)) * problem.head_dim,
                 problem.head_dim, lane % kLanes, query[r]);
  }
  for (int tile = blockIdx.x * kScanWarps + threadIdx.x / kWarpSize; tile < parts.n_tiles;
       tile += gridDim.x * kScanWarps) {
    const Part& part = PartOfTile(parts, tile);
    const auto* const keys =
        static_cast<const typename L::Element*>(part.keys) + kv_head * part.key_stride;
    const int64_t begin =
        static_cast<int64_t>(tile - part.first_tile) * parts.tile_steps * kStepKeys;
    const int64_t end = min(begin + parts.tile_steps * kStepKeys, static_cast<int64_t>(part.n_tokens));
    float best[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) best[r] = -INFINITY;
    for (int64_t first = begin; first < end; first += kStepKeys) {
      float score[kRows];
      ScoreStep<L, kRows>(keys, first, end, problem.head_dim, query, score);
      const bool is_allowed = IsAllowed(part, first + lane);
#pragma unroll
      for (int r = 0; r < kRows; ++r) best[r] = is_allowed ? fmaxf(best[r], score[r]) : best[r];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float maximum = GroupMax(best[r]);
      if (lane == 0 && row0 + r < n_rows) {
        problem.maxima[query_head(row0 + r) * parts.n_tiles + tile] = maximum;
      }
    }
  }
}

// Floats as integers of the same order, 0 below all.
__device__ inline uint32_t Ordered(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t ordered) {
  return __uint_as_float((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
}
// A candidate: greater is better, of equal scores the smaller position. Never 0.
__device__ inline uint64_t Pack(float score, uint32_t position) {
  return static_cast<uint64_t>(Ordered(score)) << 32 | ~position;
}

// What a block shares while it selects.
struct Selection {
  uint32_t bins[256];
  uint64_t prefix;
  int wanted;
  int warp_counts[2][kMaxAttendThreads / kWarpSize];
};

// Of n > k numbers at(i) the k-th greatest, by a block; *n_tied: how many of that value belong to
// the k greatest. Bytes are settled from the highest on.
template <typename Number, typename At>
__device__ Number SelectKth(int64_t n, int k, At at, Selection* shared, int* n_tied) {
  if (threadIdx.x == 0) {
    shared->prefix = 0;
    shared->wanted = k;
  }
  for (int shift = static_cast<int>(sizeof(Number)) * 8 - 8; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) shared->bins[threadIdx.x] = 0;
    __syncthreads();
    const auto prefix = static_cast<Number>(shared->prefix);
    for (int64_t base = 0; base < n; base += blockDim.x) {
      const int64_t i = base + threadIdx.x;
      Number number = 0;
      bool counts = false;
      if (i < n) {
        number = at(i);
        counts = shift + 8 >= static_cast<int>(sizeof(Number)) * 8 ||
                 (number >> (shift + 8)) == (prefix >> (shift + 8));
      }
      // Neighbours often fall into one bin: one of them adds for all.
      const unsigned bin = counts ? static_cast<unsigned>(number >> shift & 255) : 256;
      const unsigned same = __match_any_sync(kAllLanes, bin);
      if (counts && __ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x % kWarpSize)) {
        atomicAdd(&shared->bins[bin], __popc(same));
      }
    }
    __syncthreads();
    if (threadIdx.x < kWarpSize) {
      // Lane l has bins 255 − 8·l … 248 − 8·l; a scan over the lanes finds the one that holds the
      // wanted number.
      const int lane = threadIdx.x;
      int own = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) own += shared->bins[255 - 8 * lane - i];
      int before = own;
#pragma unroll
      for (int offset = 1; offset < kWarpSize; offset *= 2) {
        const int other = __shfl_up_sync(kAllLanes, before, offset);
        if (lane >= offset) before += other;
      }
      before -= own;
      const int wanted = shared->wanted;
      __syncwarp();
      if (wanted > before && wanted <= before + own) {
        int bin = 255 - 8 * lane;
        while (wanted > before + static_cast<int>(shared->bins[bin])) before += shared->bins[bin--];
        shared->prefix = prefix | static_cast<Number>(bin) << shift;
        shared->wanted = wanted - before;
      }
    }
    __syncthreads();
  }
  *n_tied = shared->wanted;
  const auto kth = static_cast<Number>(shared->prefix);
  __syncthreads();
  return kth;
}

// Calls put(place, i) for the i whose `is_above`, and for the first n_tied whose `is_tied`, in
// ascending order of i within each kind; places from 0, above first. The block's threads go through
// i together. n_above is how many are above.
template <typename Above, typename Tied, typename Put>
__device__ void Compact(int64_t n, int n_above, int n_tied, Above is_above, Tied is_tied, Put put,
                        Selection* shared) {
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  int done_above = 0;
  int done_tied = 0;
  for (int64_t base = 0; base < n; base += blockDim.x) {
    const int64_t i = base + threadIdx.x;
    const bool above = i < n && is_above(i);
    const bool tied = i < n && is_tied(i);
    const unsigned above_lanes = __ballot_sync(kAllLanes, above);
    const unsigned tied_lanes = __ballot_sync(kAllLanes, tied);
    if (lane == 0) {
      shared->warp_counts[0][warp] = __popc(above_lanes);
      shared->warp_counts[1][warp] = __popc(tied_lanes);
    }
    __syncthreads();
    int place_above = done_above;
    int place_tied = done_tied;
    for (int w = 0; w < static_cast<int>(blockDim.x / kWarpSize); ++w) {
      const int a = shared->warp_counts[0][w];
      const int t = shared->warp_counts[1][w];
      if (w < warp) {
        place_above += a;
        place_tied += t;
      }
      done_above += a;
      done_tied += t;
    }
    const unsigned below = (1u << lane) - 1;
    place_above += __popc(above_lanes & below);
    place_tied += __popc(tied_lanes & below);
    if (above) put(place_above, i);
    if (tied && place_tied < n_tied) put(n_above + place_tied, i);
    __syncthreads();
  }
}

// Descending, n a power of two, by a block.
__device__ void BitonicSort(uint64_t* items, int n) {
  for (int size = 2; size <= n; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
        const int low = 2 * i - (i & (stride - 1));
        const int high = low + stride;
        const bool descending = (low & size) == 0;
        const uint64_t a = items[low];
        const uint64_t b = items[high];
        if ((a < b) == descending) {
          items[low] = b;
          items[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

// A block a query head.
template <typename L>
__global__ void __launch_bounds__(L::kAttendThreads)
    AttendKernel(const __grid_constant__ Parts parts, const __grid_constant__ Problem problem) {
  __shared__ Selection selection;
  __shared__ int n_candidates;
  __shared__ int tiles[kMaxMemoryTopK];
  __shared__ uint64_t sorted[kMaxSorted];
  __shared__ float weights[kMaxMemoryTopK];
  __shared__ float sums[L::kAttendThreads];
  constexpr int kWarps = L::kAttendThreads / kWarpSize;

  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(row % problem.n_heads);
  const int kv_head = head / problem.group;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const float* const maxima = problem.maxima + row * parts.n_tiles;
  uint64_t* const candidates = problem.candidates + row * problem.candidates_per_row;
  if (threadIdx.x == 0) n_candidates = 0;
  __syncthreads();

  // The tiles that hold the top k, and what a score must reach.
  int n_tiles = parts.n_tiles;
  float threshold = -INFINITY;
  if (n_tiles > problem.top_k) {
    const auto at = [&](int64_t i) { return Ordered(maxima[i]); };
    int n_tied = 0;
    const uint32_t kth =
        SelectKth<uint32_t>(n_tiles, problem.top_k, at, &selection, &n_tied);
    Compact(
        n_tiles, problem.top_k - n_tied, n_tied, [&](int64_t i) { return at(i) > kth; },
        [&](int64_t i) { return at(i) == kth; },
        [&](int place, int64_t i) { tiles[place] = static_cast<int>(i); }, &selection);
    n_tiles = problem.top_k;
    threshold = FromOrdered(kth);
  } else {
    for (int i = threadIdx.x; i < n_tiles; i += blockDim.x) tiles[i] = i;
  }
  __syncthreads();

  // Their keys again.
  float query[1][L::kDims];
  L::LoadQuery(problem.queries + row * problem.head_dim, problem.head_dim, lane % kLanes, query[0]);
  for (int step = warp; step < n_tiles * parts.tile_steps; step += kWarps) {
    const int tile = tiles[step / parts.tile_steps];
    const Part& part = PartOfTile(parts, tile);
    const int64_t first =
        (static_cast<int64_t>(tile - part.first_tile) * parts.tile_steps + step % parts.tile_steps) *
        kStepKeys;
    if (first >= part.n_tokens) continue;
    const auto* const keys =
        static_cast<const typename L::Element*>(part.keys) + kv_head * part.key_stride;
    float score[1];
    ScoreStep<L, 1>(keys, first, part.n_tokens, problem.head_dim, query, score);
    const bool enters = IsAllowed(part, first + lane) && score[0] >= threshold &&
                        score[0] > -INFINITY;
    const unsigned entering = __ballot_sync(kAllLanes, enters);
    if (entering == 0) continue;
    int place = 0;
    if (lane == 0) place = atomicAdd(&n_candidates, __popc(entering));
    place = __shfl_sync(kAllLanes, place, 0) + __popc(entering & ((1u << lane) - 1));
    if (enters) {
      candidates[place] =
          Pack(score[0], static_cast<uint32_t>(part.first_position + first + lane));
    }
  }
  __syncthreads();

  // The top k of them, best first. Where they came from one place to another differs from run to
  // run; what is kept and its order do not.
  const int n_found = n_candidates;
  const int n_kept = min(n_found, problem.top_k);
  int n_sorted = n_found;
  if (n_found <= kMaxSorted) {
    for (int i = threadIdx.x; i < n_found; i += blockDim.x) sorted[i] = candidates[i];
  } else {
    int n_tied = 0;
    const auto at = [&](int64_t i) { return candidates[i]; };
    const uint64_t kth = SelectKth<uint64_t>(n_found, problem.top_k, at, &selection, &n_tied);
    Compact(
        n_found, problem.top_k, 0, [&](int64_t i) { return at(i) >= kth; },
        [](int64_t) { return false; }, [&](int place, int64_t i) { sorted[place] = at(i); },
        &selection);
    n_sorted = problem.top_k;
  }
  int n_padded = 1;
  while (n_padded < n_sorted) n_padded *= 2;
  for (int i = n_sorted + threadIdx.x; i < n_padded; i += blockDim.x) sorted[i] = 0;
  BitonicSort(sorted, n_padded);

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
  const int n_stripes = L::kAttendThreads / width;
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
          static_cast<const typename L::Element*>(part.values) + kv_head * part.value_stride;
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

template <typename L>
absl::Status Launch(CudaDevice& device, const Parts& parts, const Problem& problem, int n_kv_heads) {
  const int n_rows = problem.n_queries * problem.group;
  const cudaStream_t stream = device.stream();
  const auto scan = [&]<int kRows>() -> absl::Status {
    int blocks_per_multiprocessor = 0;
    RETURN_IF_CUDA_ERROR(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                             &blocks_per_multiprocessor, ScanKernel<L, kRows>,
                             kScanWarps * kWarpSize, 0),
                         "MemoryAttention");
    const int row_blocks = (n_rows + kRows - 1) / kRows;
    // A whole GPU once for each KV head, or as many blocks as there are tiles for.
    const int all = std::max(1, blocks_per_multiprocessor * device.n_multiprocessors());
    const int wanted = (parts.n_tiles + kScanWarps - 1) / kScanWarps;
    const int across = std::clamp(all / n_kv_heads, 1, std::max(1, wanted));
    ScanKernel<L, kRows>
        <<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(n_kv_heads),
                static_cast<unsigned>(row_blocks)),
           kScanWarps * kWarpSize, 0, stream>>>(parts, problem);
    return absl::OkStatus();
  };
  if (parts.n_tiles > 0) {
    // As many rows as registers hold beside eight keys' elements.
    constexpr int kMost = L::kDims <= 8 ? 4 : L::kDims <= 16 ? 2 : 1;
    if (kMost >= 4 && n_rows == 3) {
      if constexpr (kMost >= 4) RETURN_IF_ERROR(scan.template operator()<3>());
    } else if (kMost >= 4 && n_rows >= 4) {
      if constexpr (kMost >= 4) RETURN_IF_ERROR(scan.template operator()<4>());
    } else if (kMost >= 2 && n_rows >= 2) {
      if constexpr (kMost >= 2) RETURN_IF_ERROR(scan.template operator()<2>());
    } else {
      RETURN_IF_ERROR(scan.template operator()<1>());
    }
  }
  AttendKernel<L><<<static_cast<unsigned>(problem.n_queries * problem.n_heads), L::kAttendThreads, 0,
                    stream>>>(parts, problem);
  return LaunchStatus("MemoryAttention");
}

template <typename T>
absl::Status LaunchForDims(CudaDevice& device, const Parts& parts, const Problem& problem,
                           int n_kv_heads) {
  constexpr int kWide = 16 / sizeof(T);  // elements of 16 bytes
  const auto is_aligned = [&](int n) {
    if (problem.head_dim % n != 0) return false;
    for (int p = 0; p < parts.n_parts; ++p) {
      const Part& part = parts.part[p];
      if (reinterpret_cast<uintptr_t>(part.keys) % (n * sizeof(T)) != 0) return false;
      if (part.key_stride % n != 0) return false;
    }
    return true;
  };
  const int d = problem.head_dim;
  if (is_aligned(kWide) && d <= 8 * kWide) {
    return Launch<Layout<T, kWide, 1>>(device, parts, problem, n_kv_heads);
  }
  if (is_aligned(kWide) && d <= 16 * kWide) {
    return Launch<Layout<T, kWide, 2>>(device, parts, problem, n_kv_heads);
  }
  if (is_aligned(4) && d <= 128) {
    return Launch<Layout<T, 4, 4>>(device, parts, problem, n_kv_heads);
  }
  if (d <= 256) return Launch<Layout<T, 1, 32>>(device, parts, problem, n_kv_heads);
  return absl::UnimplementedError(
      StrCat("MemoryAttention: heads of ", d, " dimensions, want at most 256 on a GPU"));
}

}  // namespace

absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t n_kv_heads = args.parts[0].keys.dim(0);
  Parts parts = {};
  // Small tiles where many of them are read twice.
  parts.tile_steps = args.top_k <= 64 ? kMaxTileSteps : 2;
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
        .maxima = reinterpret_cast<float*>(
            scratch + rows_at_once * candidates_per_row * static_cast<int64_t>(sizeof(uint64_t))),
        .candidates = reinterpret_cast<uint64_t*>(scratch),
        .candidates_per_row = candidates_per_row,
        .output = args.output.As<float>() + row * head_dim,
        .lse = args.lse.As<float>() + row,
        .positions = args.positions != nullptr ? args.positions + row * args.top_k : nullptr,
        .scores = args.scores != nullptr ? args.scores + row * args.top_k : nullptr};
    RETURN_IF_ERROR(args.parts[0].keys.dtype() == DType::kBF16
                        ? LaunchForDims<__nv_bfloat16>(cuda, parts, problem,
                                                       static_cast<int>(n_kv_heads))
                        : LaunchForDims<float>(cuda, parts, problem, static_cast<int>(n_kv_heads)));
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
