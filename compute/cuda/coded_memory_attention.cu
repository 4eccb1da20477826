// Approximate attention to the top k of millions of keys, at about the time that reading their
// codes takes.
//
// As in memory_attention.cu there is no matrix of scores: the scan stores of each tile of codes the
// best estimate. The tiles with the n_candidates best of these, which the second kernel finds, hold
// the n_candidates best keys by estimate, and the n-th of them is what the estimate of such a key
// is at least. The third kernel, some blocks a query head, looks at the codes of these tiles again
// and scores the keys that reach it as they are stored; the last of the blocks attends to the top
// k. Parts without codes are scanned by their keys, and all keys of their tiles that are among the
// best are scored; of parts that an index was searched for, the keys that it found.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/coded_memory_attention.h"
#include "compute/cuda/attend_to_kept.cuh"
#include "compute/cuda/code_scorer.cuh"
#include "compute/cuda/cuda_device.h"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/key_scan.cuh"
#include "compute/cuda/memory_parts.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

constexpr int kScanWarps = 8;
constexpr int kMinTile = 128;  // keys
constexpr int kMaxTile = 512;
constexpr int64_t kManyTiles = 32'768;  // that a block looks through in little time

// blockIdx.y: KV head; blockIdx.z: kRows of its rows. A warp a tile, with the stride of the grid.
// All parts have codes of the same bits. Dynamic shared memory: kSharedBytes a warp.
template <typename Scorer>
__global__ void __launch_bounds__(kScanWarps* kWarpSize)
    ScanKernel(const __grid_constant__ CodedParts all, const __grid_constant__ Problem problem) {
  extern __shared__ uint4 shared[];
  __shared__ typename Scorer::Queries queries;
  __shared__ float mean_scores[kMaxMemoryParts][Scorer::kRows];
  // The next kernel reads the queries, too: it begins once they are there.
  AwaitKernelBefore();
  AllowNextKernel();
  const Parts& parts = all.parts;
  const int kv_head = blockIdx.y;
  const int n_rows = problem.n_queries * problem.group;
  const int row0 = blockIdx.z * Scorer::kRows;
  const int n_rows_here = min(Scorer::kRows, n_rows - row0);
  const int n_warps = blockDim.x / kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  const auto query_of = [&](int r) { return QueryOf(problem, kv_head, row0 + r); };
  for (int i = threadIdx.x; i < parts.n_parts * n_rows_here; i += blockDim.x) {
    mean_scores[i / n_rows_here][i % n_rows_here] =
        MeanScore(all.coded[i / n_rows_here], kv_head, problem.head_dim, query_of(i % n_rows_here));
  }
  PrepareCodeQueries(all.coded[0], problem.head_dim, n_rows_here, query_of, &queries,
                     reinterpret_cast<float*>(shared));
  const int n_lines = all.coded[0].n_lines;
  const Scorer scorer(queries, n_lines);
  typename Scorer::Pipeline pipeline(
      scorer, reinterpret_cast<std::byte*>(shared) + warp * Scorer::kSharedBytes);
  const int tile_blocks = parts.tile_keys / kCodeLineWords;
  const int first = static_cast<int>(blockIdx.x) * n_warps + warp;
  const int stride = gridDim.x * n_warps;

  // What is read next, and of its part what does not change.
  int ahead = first;
  int ahead_block = 0;  // of the tile
  int ahead_begin = 0, ahead_end = 0, ahead_blocks = 0;
  const uint32_t* codes = nullptr;
  const __nv_bfloat16* factors = nullptr;
  const auto read_ahead = [&] {
    if (ahead >= parts.n_tiles) return pipeline.NextIsNone();
    if (ahead >= ahead_end) {
      const int p = PartOfTile(parts, ahead);
      ahead_begin = parts.part[p].first_tile;
      ahead_end = p + 1 < parts.n_parts ? parts.part[p + 1].first_tile : parts.n_tiles;
      ahead_blocks = static_cast<int>(all.coded[p].n_blocks);
      codes = all.coded[p].codes + kv_head * all.coded[p].n_blocks * n_lines * kCodeLineWords;
      factors = all.coded[p].factors + kv_head * all.coded[p].n_blocks * kCodeLineWords;
    }
    const int block = (ahead - ahead_begin) * tile_blocks + ahead_block;
    pipeline.Next(codes + static_cast<int64_t>(block) * n_lines * kCodeLineWords,
                  factors + static_cast<int64_t>(block) * kCodeLineWords, ahead_blocks - block);
    ahead_block += Scorer::kStepBlocks;
    if (ahead_block < tile_blocks && block + Scorer::kStepBlocks < ahead_blocks) return;
    ahead_block = 0;
    ahead += stride;
  };
  for (int i = 0; i < Scorer::Pipeline::kDepth; ++i) read_ahead();

  float* maxima[2];  // of rows 2·(lane mod 4) and the next; null beyond the last
  float units[2], means[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = 2 * (lane % 4) + i;
    const bool is_there = lane < 4 && r < n_rows_here;
    maxima[i] =
        is_there ? problem.maxima + QueryHead(problem, kv_head, row0 + r) * problem.maxima_per_row
                 : nullptr;
    units[i] = is_there ? queries.units[r] : 0.0f;
    means[i] = 0.0f;
  }
  int begin = 0, end = 0, n_tokens = 0;  // of the part
  const uint64_t* allowed = nullptr;
  for (int tile = first; tile < parts.n_tiles; tile += stride) {
    if (tile >= end) {
      const int p = PartOfTile(parts, tile);
      begin = parts.part[p].first_tile;
      end = p + 1 < parts.n_parts ? parts.part[p + 1].first_tile : parts.n_tiles;
      n_tokens = parts.part[p].n_tokens;
      allowed = parts.part[p].allowed;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (maxima[i] != nullptr) means[i] = mean_scores[p][2 * (lane % 4) + i];
      }
    }
    const int first_key = (tile - begin) * parts.tile_keys;
    const int n_keys = min(parts.tile_keys, n_tokens - first_key);
    typename Scorer::Best best;
    for (int at = 0; at < n_keys; at += Scorer::kStepKeys) {
      const auto scores = pipeline.Take();
      read_ahead();
      if (allowed == nullptr && at + Scorer::kStepKeys <= n_keys) {
        best.Update(scores, [](int) { return true; });
        continue;
      }
      uint64_t mask = allowed != nullptr ? allowed[(first_key + at) / 64] : ~uint64_t{0};
      if (n_keys - at < 64) mask &= (uint64_t{1} << (n_keys - at)) - 1;
      best.Update(scores, [&](int i) { return (mask >> i & 1) != 0; });
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float maximum = best.Maximum(i);
      if (maxima[i] != nullptr) maxima[i][tile] = Estimate(maximum, units[i], means[i]);
    }
  }
}

// The score of a stored key, by eight lanes, which all get it.
template <typename Element>
__device__ float ScoreOf(const Element* key, const float* query, int head_dim) {
  const int lane = threadIdx.x % 8;
  float sum = 0.0f;
  constexpr int kVector = 16 / static_cast<int>(sizeof(Element));
  if (head_dim % kVector == 0 && reinterpret_cast<uintptr_t>(key) % 16 == 0) {
    for (int at = lane * kVector; at < head_dim; at += 8 * kVector) {
      const auto entries = *reinterpret_cast<const Vector<Element, kVector>*>(key + at);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum = fmaf(ToFloat(entries.values[i]), query[at + i], sum);
    }
  } else {
    for (int at = lane; at < head_dim; at += 8) sum = fmaf(ToFloat(key[at]), query[at], sum);
  }
  return GroupSum<8>(sum);
}

constexpr int kBitKinds = 3;  // 2, 4 and 8
__device__ inline int BitKind(int bits) { return bits / 4; }

// Of a query head, between the kernels.
struct alignas(16) ChosenTiles {
  int n_tiles;
  float threshold;
  int n_scored;  // candidates so far
  int n_done;    // blocks
  int tiles[kMaxCandidates];
};

// A block a query head. Tiles count through all parts.
__global__ void __launch_bounds__(kSelectThreads)
    SelectKernel(const __grid_constant__ Problem problem, const int n_candidates) {
  __shared__ AttendShared shared;
  AwaitKernelBefore();
  AllowNextKernel();
  const int64_t row = blockIdx.x;
  auto* const chosen = reinterpret_cast<ChosenTiles*>(problem.extra) + row;
  const BestTiles best =
      FindBestTiles(problem.maxima + row * problem.maxima_per_row,
                    static_cast<int>(problem.maxima_per_row), n_candidates, chosen->tiles, &shared);
  if (threadIdx.x > 0) return;
  chosen->n_tiles = best.n_tiles;
  chosen->threshold = best.threshold;
  chosen->n_scored = chosen->n_done = 0;
}

// blockIdx.x: query head, which the blocks blockIdx.y share.
template <typename Element>
__global__ void __launch_bounds__(kSelectThreads)
    AttendKernel(const __grid_constant__ CodedParts all, const __grid_constant__ Problem problem) {
  __shared__ AttendShared shared;
  __shared__ CodeQueries<1> queries[kBitKinds];
  __shared__ float query[kMaxCodeDims];
  __shared__ float rotation[kMaxCodeDims];
  __shared__ float mean_scores[kMaxMemoryParts];
  __shared__ bool is_last;
  constexpr int kWarps = kSelectThreads / kWarpSize;
  const Parts& parts = all.parts;
  const int64_t row = blockIdx.x;
  const int kv_head = static_cast<int>(row % problem.n_heads) / problem.group;
  const int lane = threadIdx.x % kWarpSize;
  const float* const from = problem.queries + row * problem.head_dim;
  uint64_t* const candidates = problem.candidates + row * problem.candidates_per_row;
  for (int d = threadIdx.x; d < problem.head_dim; d += blockDim.x) query[d] = from[d];
  for (int p = threadIdx.x; p < parts.n_parts; p += blockDim.x) {
    mean_scores[p] =
        all.coded[p].bits > 0 ? MeanScore(all.coded[p], kv_head, problem.head_dim, from) : 0.0f;
  }
  unsigned prepared = 0;
  for (int p = 0; p < parts.n_parts; ++p) {
    const int kind = BitKind(all.coded[p].bits);
    if (all.coded[p].bits == 0 || (prepared >> kind & 1) != 0) continue;
    prepared |= 1u << kind;
    PrepareCodeQueries(
        all.coded[p], problem.head_dim, 1, [&](int) { return from; }, &queries[kind], rotation);
  }
  __syncthreads();
  AwaitKernelBefore();
  auto* const chosen = reinterpret_cast<ChosenTiles*>(problem.extra) + row;
  const int n_tiles = chosen->n_tiles;
  const float threshold = chosen->threshold;

  constexpr int kKeys = 4;  // of a lane
  const int tile_steps = parts.tile_keys / (kKeys * kWarpSize);
  const int warp = static_cast<int>(blockIdx.y) * kWarps + threadIdx.x / kWarpSize;
  for (int step = warp; step < n_tiles * tile_steps; step += gridDim.y * kWarps) {
    const int tile = chosen->tiles[step / tile_steps];
    const int p = PartOfTile(parts, tile);
    const Part& part = parts.part[p];
    const CodedPart& coded = all.coded[p];
    const int64_t first = Step<kKeys * kWarpSize>{tile, step % tile_steps}.First(parts, part);
    bool enters[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      enters[i] = IsAllowed(part, first + i * kWarpSize + lane);
    }
    if (coded.bits > 0) {
      const CodeQueries<1>& query_codes = queries[BitKind(coded.bits)];
      const uint32_t* codes[kKeys];
      float factors[kKeys];
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        const int64_t key = first + i * kWarpSize + lane;
        const int64_t block = kv_head * coded.n_blocks + key / kCodeLineWords;
        codes[i] = enters[i]
                       ? coded.codes + block * coded.n_lines * kCodeLineWords + key % kCodeLineWords
                       : nullptr;
        factors[i] =
            enters[i]
                ? __bfloat162float(coded.factors[block * kCodeLineWords + key % kCodeLineWords])
                : 0.0f;
      }
      int sums[kKeys] = {};
      const uint32_t* const digits = query_codes.words[0];
      if (coded.bits == 2) SumCodes<2>(codes, coded.n_lines, digits, sums);
      if (coded.bits == 4) SumCodes<4>(codes, coded.n_lines, digits, sums);
      if (coded.bits == 8) SumCodes<8>(codes, coded.n_lines, digits, sums);
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        enters[i] =
            enters[i] && Estimate(RelativeEstimate(factors[i], sums[i], query_codes.offsets[0]),
                                  query_codes.units[0], mean_scores[p]) >= threshold;
      }
    }
    // Keys that enter, four at a time, eight lanes each.
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      unsigned entering = __ballot_sync(kAllLanes, enters[i]);
      while (entering != 0) {
        unsigned rest = entering;
        for (int skip = lane / 8; skip > 0; --skip) rest &= rest - 1;
        const bool is_there = rest != 0;
        const int64_t key =
            first + i * kWarpSize + __ffs(static_cast<int>(is_there ? rest : entering)) - 1;
        const float score = ScoreOf(static_cast<const Element*>(part.keys) +
                                        kv_head * part.key_stride + key * problem.head_dim,
                                    query, problem.head_dim);
        if (is_there && lane % 8 == 0 && score > -INFINITY) {
          candidates[atomicAdd(&chosen->n_scored, 1)] =
              Pack(score, static_cast<uint32_t>(part.first_position + key));
        }
#pragma unroll
        for (int done = 0; done < 4; ++done) entering &= entering - 1;
      }
    }
  }

  // What indexes found, eight lanes a key.
  const int64_t list = (static_cast<int64_t>(kv_head) * problem.n_all_queries +
                        problem.first_query + row / problem.n_heads) *
                           problem.group +
                       row % problem.group;
  for (int p = 0; p < parts.n_parts; ++p) {
    const FoundKeys& found = all.coded[p].found;
    const Part& part = parts.part[p];
    constexpr int kAtOnce = kSelectThreads / 8;
    for (int base = static_cast<int>(blockIdx.y) * kAtOnce; base < found.n_found;
         base += static_cast<int>(gridDim.y) * kAtOnce) {
      const int i = base + static_cast<int>(threadIdx.x) / 8;
      int64_t key = i < found.n_found ? found.keys[list * found.n_found + i] : -1;
      if (key >= 0 && found.tokens != nullptr) key = found.tokens[key];
      const bool is_there = key >= 0 && IsAllowed(part, key);
      if (!is_there) key = 0;
      const float score = ScoreOf(static_cast<const Element*>(part.keys) +
                                      kv_head * part.key_stride + key * problem.head_dim,
                                  query, problem.head_dim);
      if (is_there && lane % 8 == 0 && score > -INFINITY) {
        candidates[atomicAdd(&chosen->n_scored, 1)] =
            Pack(score, static_cast<uint32_t>(part.first_position + key));
      }
    }
  }

  // What a block wrote is there before it counts as done.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(&chosen->n_done, 1) == static_cast<int>(gridDim.y) - 1;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  const int n_scored = __ldcg(&chosen->n_scored);
  for (int i = threadIdx.x; i < min(n_scored, kMaxSorted); i += blockDim.x) {
    shared.sorted[i] = __ldcg(candidates + i);
  }
  __syncthreads();
  AttendToKept<Element>(parts, problem, row, kv_head, n_scored, candidates, &shared);
}

template <typename Scorer>
absl::Status LaunchScan(CudaDevice& device, const CodedParts& parts, const Problem& problem,
                        int n_kv_heads) {
  dim3 grid;
  int n_warps = 0;
  const int n_rows = problem.n_queries * problem.group;
  RETURN_IF_ERROR(ScanGrid(device, ScanKernel<Scorer>, Scorer::kSharedBytes, kScanWarps,
                           parts.parts.n_tiles, n_kv_heads,
                           (n_rows + Scorer::kRows - 1) / Scorer::kRows, &grid, &n_warps));
  return LaunchDependent(device, "CodedMemoryAttention", ScanKernel<Scorer>, grid,
                         n_warps * kWarpSize, static_cast<size_t>(n_warps * Scorer::kSharedBytes),
                         parts, problem);
}

template <int kBits>
absl::Status LaunchScanOf(CudaDevice& device, const CodedParts& parts, const Problem& problem,
                          int n_kv_heads) {
  constexpr int kPerDims = kBits;  // groups of four lines of 128 dimensions
  const int n_lines = parts.coded[0].n_lines;
  if (n_lines <= kPerDims / 2 * 4) {
    return LaunchScan<CodeScorer<kBits, kPerDims / 2>>(device, parts, problem, n_kv_heads);
  }
  if (n_lines <= kPerDims * 4) {
    return LaunchScan<CodeScorer<kBits, kPerDims>>(device, parts, problem, n_kv_heads);
  }
  return LaunchScan<CodeScorer<kBits, 2 * kPerDims>>(device, parts, problem, n_kv_heads);
}

// The parts of `all` with codes of these bits (0: without) → *some, whose tiles count from 0;
// *first_tile: of `all`.
void Select(const CodedParts& all, int bits, CodedParts* some, int* first_tile) {
  *some = {};
  some->parts.tile_keys = all.parts.tile_keys;
  for (int p = 0; p < all.parts.n_parts; ++p) {
    if (all.coded[p].bits != bits || all.coded[p].found.n_found > 0) continue;
    if (some->parts.n_parts == 0) *first_tile = all.parts.part[p].first_tile;
    some->coded[some->parts.n_parts] = all.coded[p];
    Part& part = some->parts.part[some->parts.n_parts++];
    part = all.parts.part[p];
    part.first_tile -= *first_tile;
    const int n_tiles = (part.n_tokens + all.parts.tile_keys - 1) / all.parts.tile_keys;
    some->parts.n_tiles = part.first_tile + n_tiles;
  }
}

}  // namespace

absl::Status CodedMemoryAttention(Device& device, const CodedMemoryAttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t n_kv_heads = args.parts[0].entries.keys.dim(0);
  const DType dtype = args.parts[0].entries.keys.dtype();
  if (head_dim > kMaxCodeDims) {
    return absl::UnimplementedError(StrCat("CodedMemoryAttention: heads of ", head_dim,
                                           " dimensions, want at most ", kMaxCodeDims,
                                           " on a GPU"));
  }
  // Parts of a kind beside one another: each kind is scanned by one kernel. Positions are those of
  // the parts as they were given.
  CodedParts all = {};
  int64_t n_tokens = 0;
  for (const CodedMemoryPart& part : args.parts) n_tokens += part.entries.keys.dim(1);
  all.parts.tile_keys = kMinTile;
  while (all.parts.tile_keys < kMaxTile && n_tokens > all.parts.tile_keys * kManyTiles) {
    all.parts.tile_keys *= 2;
  }
  constexpr int kKinds[] = {2, 4, 8, 0};
  int64_t n_found = 0;
  for (const int bits : kKinds) {
    int64_t first_position = 0;
    for (const CodedMemoryPart& part : args.parts) {
      const int64_t n = part.entries.keys.dim(1);
      if (n > 0 && part.codes.bits == bits && part.found.n_found == 0) {
        CodedPart& coded = all.coded[all.parts.n_parts];
        coded = {};
        if (bits > 0) {
          coded = {.codes = reinterpret_cast<const uint32_t*>(part.codes.codes),
                   .factors = reinterpret_cast<const __nv_bfloat16*>(part.codes.factors),
                   .mean = part.codes.mean,
                   .rotation = part.codes.rotation,
                   .n_blocks = KeyCoder::NumBlocks(n),
                   .bits = bits,
                   .n_lines = static_cast<int>(KeyCoder::NumLines(bits, head_dim))};
        }
        AddPart(part.entries, first_position, &all.parts);
      }
      first_position += n;
    }
  }
  int64_t first_position = 0;
  for (const CodedMemoryPart& part : args.parts) {
    const int64_t n = part.entries.keys.dim(1);
    if (n > 0 && part.found.n_found > 0) {
      CodedPart& coded = all.coded[all.parts.n_parts];
      coded = {};
      coded.found = part.found;
      n_found += part.found.n_found;
      AddPart(part.entries, first_position, &all.parts, /*is_scanned=*/false);
    }
    first_position += n;
  }
  const Problem problem{
      .queries = args.queries.As<float>(),
      .n_queries = static_cast<int>(args.queries.dim(0)),
      .n_heads = static_cast<int>(n_heads),
      .group = static_cast<int>(n_heads / n_kv_heads),
      .head_dim = static_cast<int>(head_dim),
      .top_k = args.top_k,
      .scale = args.scale,
      .maxima = nullptr,
      .maxima_per_row = all.parts.n_tiles,
      .candidates = nullptr,
      .candidates_per_row = int64_t{std::min(args.n_candidates, std::max(all.parts.n_tiles, 1))} *
                                all.parts.tile_keys +
                            n_found,
      .extra = nullptr,
      .extra_per_row = sizeof(ChosenTiles),
      .output = args.output.As<float>(),
      .lse = args.lse.As<float>(),
      .positions = args.positions,
      .scores = args.scores};
  return ForQueriesThatFit(cuda, problem, [&](const Problem& some) -> absl::Status {
    for (const int bits : kKinds) {
      CodedParts parts;
      int first_tile = 0;
      Select(all, bits, &parts, &first_tile);
      if (parts.parts.n_parts == 0) continue;
      Problem scan = some;
      scan.maxima += first_tile;
      const int n = static_cast<int>(n_kv_heads);
      RETURN_IF_ERROR(bits == 2   ? LaunchScanOf<2>(cuda, parts, scan, n)
                      : bits == 4 ? LaunchScanOf<4>(cuda, parts, scan, n)
                      : bits == 8 ? LaunchScanOf<8>(cuda, parts, scan, n)
                                  : LaunchKeyScan(cuda, dtype, parts.parts, scan, n));
    }
    constexpr std::string_view kOp = "CodedMemoryAttention";
    const int n_rows = some.n_queries * some.n_heads;
    RETURN_IF_ERROR(LaunchDependent(cuda, kOp, SelectKernel, dim3(static_cast<unsigned>(n_rows)),
                                    kSelectThreads, 0, some, args.n_candidates));
    // The whole GPU once.
    const dim3 grid(static_cast<unsigned>(n_rows),
                    static_cast<unsigned>(std::max(1, cuda.n_multiprocessors() / n_rows)));
    return dtype == DType::kBF16 ? LaunchDependent(cuda, kOp, AttendKernel<__nv_bfloat16>, grid,
                                                   kSelectThreads, 0, all, some)
                                 : LaunchDependent(cuda, kOp, AttendKernel<float>, grid,
                                                   kSelectThreads, 0, all, some);
  });
}

}  // namespace fovea::compute::cuda
