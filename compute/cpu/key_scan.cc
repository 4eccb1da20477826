// A tile of keys, of either type, is widened and transposed into the first-level cache,
// [head_dim, tile keys] in float, once for all queries; then each group of queries multiplies it in
// registers: one vector holds the scores of one query with as many keys as it has lanes. So a score
// is a plain chain of fused multiply-adds over the dimensions in order, whatever the vector width,
// and a whole vector of scores is compared with the query's threshold at once.
#include "compute/cpu/key_scan.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <vector>

// Nothing here gains from the targets between these; vectors without a size at compile time cannot
// be held in arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/key_scan.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#ifndef FOVEA_COMPUTE_CPU_KEY_SCAN_ONCE
#define FOVEA_COMPUTE_CPU_KEY_SCAN_ONCE
namespace fovea::compute::cpu {

// Keys are read in blocks of 8 dimensions, 16 or 32 bytes each.
inline constexpr int64_t kBlock = 8;

// The rows of a packed tile or query: a last block that is not full is read again from the row's
// end, the dimensions that come twice with a query of 0.
inline int64_t PaddedDim(int64_t head_dim) { return (head_dim + kBlock - 1) / kBlock * kBlock; }

// Where dimension d of a row of head_dim goes in a packed row.
inline int64_t PackedPosition(int64_t d, int64_t head_dim) {
  const int64_t rest = head_dim % kBlock;
  if (rest == 0 || head_dim < kBlock || d < head_dim - rest) return d;
  return d + kBlock - rest;
}

// What all threads of a scan share.
struct ScanPlan {
  std::span<const KeyRun> runs;
  int64_t n_queries;
  int64_t head_dim;
  EntryType key_type;              // of all runs
  const float* packed_queries;     // groups of Lanes().n_queries, each [padded_dim, n in group]
  std::vector<int64_t> run_begin;  // [n_runs + 1]: keys before each run
};

// What each has for itself.
struct ScanWorker {
  TopK best;
  std::vector<float> thresholds;  // [n_queries]
  float* tile;                    // [padded_dim, tile keys]
};

// The shape of the kernel for this CPU.
struct TileShape {
  int64_t n_queries;
  int64_t n_keys;
};

}  // namespace fovea::compute::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::ScalableTag<float> kFloats;
constexpr hn::ScalableTag<uint32_t> kWords;  // a float or two bfloat16
using Floats = hn::Vec<decltype(kFloats)>;
using Words = hn::Vec<decltype(kWords)>;
constexpr int64_t kLanes = hn::MaxLanes(kFloats);
// Accumulators, one vector of each of the key columns and a broadcast query value fit in the 32
// registers of AVX-512 and NEON, or the 16 of the others.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kGroup = 8;
#else
constexpr int kGroup = 4;
#endif
constexpr int kColumns = 3;  // vectors of keys in a tile
constexpr int64_t kTileKeys = kColumns * kLanes;

TileShape GetTileShape() { return {kGroup, kTileKeys}; }

#if HWY_TARGET != HWY_SCALAR
template <typename T>
HWY_INLINE hn::Vec<hn::Full128<uint32_t>> Load16Bytes(const T* at) {
  return hn::LoadU(hn::Full128<uint32_t>(), reinterpret_cast<const uint32_t*>(at));
}

// A vector whose 16-byte blocks are those at `from` of rows[0], rows[4], rows[8], …
template <typename T>
HWY_INLINE Words LoadBlocks(const T* const* rows, int64_t from) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  const hn::Full256<uint32_t> d256;
  const auto low = hn::Combine(d256, Load16Bytes(rows[4] + from), Load16Bytes(rows[0] + from));
#if HWY_TARGET <= HWY_AVX3
  return hn::Combine(
      kWords, hn::Combine(d256, Load16Bytes(rows[12] + from), Load16Bytes(rows[8] + from)), low);
#else
  return low;
#endif
#else
  return Load16Bytes(rows[0] + from);
#endif
}

// The 16 bytes at `from` of kLanes keys: words[w] holds word w of each.
template <typename T>
HWY_INLINE void LoadTransposed(const T* const* rows, int64_t from, Words (&words)[4]) {
  const hn::Repartition<uint64_t, decltype(kWords)> d64;
  const Words r0 = LoadBlocks(rows + 0, from);
  const Words r1 = LoadBlocks(rows + 1, from);
  const Words r2 = LoadBlocks(rows + 2, from);
  const Words r3 = LoadBlocks(rows + 3, from);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(kWords, r0, r1));
  const auto low23 = hn::BitCast(d64, hn::InterleaveLower(kWords, r2, r3));
  const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(kWords, r0, r1));
  const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(kWords, r2, r3));
  words[0] = hn::BitCast(kWords, hn::InterleaveLower(d64, low01, low23));
  words[1] = hn::BitCast(kWords, hn::InterleaveUpper(d64, low01, low23));
  words[2] = hn::BitCast(kWords, hn::InterleaveLower(d64, high01, high23));
  words[3] = hn::BitCast(kWords, hn::InterleaveUpper(d64, high01, high23));
}

// Widens and transposes one block of kLanes keys: row d of out (rows kTileKeys apart) is dimension
// block + d of each key.
HWY_INLINE void PackBlock(const BFloat16* const* rows, int64_t block, float* out) {
  Words pairs[4];
  LoadTransposed(rows, block, pairs);
  const Words high_half = hn::Set(kWords, 0xffff0000u);
  for (int p = 0; p < 4; ++p) {
    hn::Store(hn::BitCast(kFloats, hn::ShiftLeft<16>(pairs[p])), kFloats, out + 2 * p * kTileKeys);
    hn::Store(hn::BitCast(kFloats, hn::And(pairs[p], high_half)), kFloats,
              out + (2 * p + 1) * kTileKeys);
  }
}

HWY_INLINE void PackBlock(const float* const* rows, int64_t block, float* out) {
  for (int64_t half = 0; half < kBlock; half += 4) {
    Words floats[4];
    LoadTransposed(rows, block + half, floats);
    for (int d = 0; d < 4; ++d) {
      hn::Store(hn::BitCast(kFloats, floats[d]), kFloats, out + (half + d) * kTileKeys);
    }
  }
}

#endif  // HWY_TARGET != HWY_SCALAR

// Numbers of a type that a cache line holds.
template <typename T>
constexpr int64_t kLineNumbers = 64 / sizeof(T);

// tile = [padded_dim, kTileKeys] ← rows[0 … kLanes · n_columns). Meanwhile fetches as many bytes
// from `next` (unless null), where the next tile lies: blocks of many rows are not the order that
// the CPU's own prefetchers know.
template <typename T>
HWY_INLINE void PackTile(const T* const* rows, int n_columns, int64_t head_dim,
                         [[maybe_unused]] const T* next, float* tile) {
#if HWY_TARGET != HWY_SCALAR
  if (head_dim >= kBlock) {
    for (int column = 0; column < n_columns; ++column) {
      const T* const* column_rows = rows + column * kLanes;
      float* out = tile + column * kLanes;
      int64_t block = 0;
      for (; block + kBlock <= head_dim; block += kBlock) {
        if (next != nullptr) {
          for (int64_t i = 0; i < kLanes * kBlock; i += kLineNumbers<T>, next += kLineNumbers<T>) {
            hwy::Prefetch(next);
          }
        }
        PackBlock(column_rows, block, out + block * kTileKeys);
      }
      if (block < head_dim) PackBlock(column_rows, head_dim - kBlock, out + block * kTileKeys);
    }
    return;
  }
#endif
  std::fill(tile, tile + PaddedDim(head_dim) * kTileKeys, 0.0f);
  for (int64_t j = 0; j < n_columns * kLanes; ++j) {
    for (int64_t d = 0; d < head_dim; ++d) {
      tile[PackedPosition(d, head_dim) * kTileKeys + j] = static_cast<float>(rows[j][d]);
    }
  }
}

// scores[q][column] of a group of kQueries with the first kWidth columns of a tile.
template <int kQueries, int kWidth>
HWY_INLINE void Multiply(const float* HWY_RESTRICT queries, const float* HWY_RESTRICT tile,
                         int64_t padded_dim, Floats (&scores)[kQueries][kWidth]) {
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) scores[q][c] = hn::Zero(kFloats);
  }
  for (int64_t d = 0; d < padded_dim; ++d) {
    Floats keys[kWidth];
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) keys[c] = hn::Load(kFloats, tile + d * kTileKeys + c * kLanes);
#pragma GCC unroll 8
    for (int q = 0; q < kQueries; ++q) {
      const Floats value = hn::Set(kFloats, queries[d * kQueries + q]);
#pragma GCC unroll 4
      for (int c = 0; c < kWidth; ++c) scores[q][c] = hn::MulAdd(keys[c], value, scores[q][c]);
    }
  }
}

// Scores of a query that may enter its list: rare once the list has settled, so out of line.
HWY_NOINLINE void PushScores(const float* scores, int64_t n_keys, int64_t query, const int64_t* ids,
                             int64_t first_id, float floor, ScanWorker& worker) {
  float threshold = worker.thresholds[query];
  for (int64_t j = 0; j < n_keys; ++j) {
    if (!(scores[j] >= threshold)) continue;
    worker.best.Push(query, {scores[j], ids != nullptr ? ids[j] : first_id + j});
    threshold = std::max(floor, worker.best.Threshold(query));
  }
  worker.thresholds[query] = threshold;
}

// One group of queries against a packed tile of n_keys keys (what lies beyond is ignored).
template <int kQueries>
HWY_NOINLINE void ScanGroup(const float* HWY_RESTRICT queries, const float* HWY_RESTRICT tile,
                            int64_t padded_dim, int64_t first_query, int64_t n_keys,
                            const int64_t* ids, int64_t first_id, ScanWorker& worker) {
  Floats scores[kQueries][kColumns];
  Multiply<kQueries, kColumns>(queries, tile, padded_dim, scores);
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
    const int64_t query = first_query + q;
    const Floats threshold = hn::Set(kFloats, worker.thresholds[query]);
    const auto reaches =
        hn::Or(hn::Or(hn::Ge(scores[q][0], threshold), hn::Ge(scores[q][1], threshold)),
               hn::Ge(scores[q][2], threshold));
    if (HWY_LIKELY(hn::AllFalse(kFloats, reaches))) continue;
    HWY_ALIGN float row[kTileKeys];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) hn::Store(scores[q][c], kFloats, row + c * kLanes);
    PushScores(row, n_keys, query, ids, first_id, worker.thresholds[query], worker);
  }
}

template <typename T>
void ScanTile(const ScanPlan& plan, const T* const* rows, int64_t n_keys, const int64_t* ids,
              int64_t first_id, const T* next, ScanWorker& worker) {
  const int64_t padded_dim = PaddedDim(plan.head_dim);
  PackTile(rows, kColumns, plan.head_dim, next, worker.tile);
  const float* queries = plan.packed_queries;
  const int64_t n_queries = plan.n_queries;
  for (int64_t first = 0; first < n_queries; first += kGroup, queries += kGroup * padded_dim) {
    const auto scan = [&](auto function) {
      function(queries, worker.tile, padded_dim, first, n_keys, ids, first_id, worker);
    };
    switch (std::min<int64_t>(kGroup, n_queries - first)) {
      case 1:
        scan(ScanGroup<1>);
        break;
      case 2:
        scan(ScanGroup<2>);
        break;
      case 3:
        scan(ScanGroup<3>);
        break;
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
      case 4:
        scan(ScanGroup<4>);
        break;
      case 5:
        scan(ScanGroup<5>);
        break;
      case 6:
        scan(ScanGroup<6>);
        break;
      case 7:
        scan(ScanGroup<7>);
        break;
#endif
      default:
        scan(ScanGroup<kGroup>);
        break;
    }
  }
}

// Keys begin … end of all runs laid end to end.
template <typename T>
void ScanKeys(const ScanPlan& plan, int64_t begin, int64_t end, ScanWorker& worker) {
  const int64_t head_dim = plan.head_dim;
  const T* rows[kTileKeys];
  int64_t ids[kTileKeys];
  size_t run =
      static_cast<size_t>(std::upper_bound(plan.run_begin.begin(), plan.run_begin.end(), begin) -
                          plan.run_begin.begin() - 1);
  while (begin < end) {
    // Short runs (what deletions and filters leave) share tiles.
    const int64_t n = std::min(kTileKeys, end - begin);
    const KeyRun* current = &plan.runs[run];
    const int64_t first = begin - plan.run_begin[run];
    if (first + n <= current->n_keys) {
      const T* const keys = current->keys.As<T>() + first * head_dim;
      for (int64_t j = 0; j < n; ++j) rows[j] = keys + j * head_dim;
      std::fill(rows + n, rows + kTileKeys, rows[0]);
      const T* next = first + 2 * n <= current->n_keys ? rows[0] + n * head_dim : nullptr;
      ScanTile<T>(plan, rows, n, nullptr, current->first_id + first, next, worker);
    } else {
      int64_t position = first;
      for (int64_t j = 0; j < n; ++j, ++position) {
        while (position >= current->n_keys) {
          position = 0;
          current = &plan.runs[++run];
        }
        rows[j] = current->keys.As<T>() + position * head_dim;
        ids[j] = current->first_id + position;
      }
      std::fill(rows + n, rows + kTileKeys, rows[0]);
      ScanTile<T>(plan, rows, n, ids, 0, nullptr, worker);
    }
    begin += n;
    while (begin < end && begin >= plan.run_begin[run + 1]) ++run;
  }
}

void ScanRange(const ScanPlan& plan, int64_t begin, int64_t end, ScanWorker& worker) {
  if (plan.key_type == EntryType::kFloat32) {
    ScanKeys<float>(plan, begin, end, worker);
  } else {
    ScanKeys<BFloat16>(plan, begin, end, worker);
  }
}

template <typename T>
HWY_INLINE float ScoreOf(const float* query, const T* key, int64_t head_dim) {
  // One lane, so that a CPU with fused multiply-add uses it here as well.
  const hn::CappedTag<float, 1> d1;
  auto sum = hn::Zero(d1);
  for (int64_t d = 0; d < head_dim; ++d) {
    sum = hn::MulAdd(hn::Set(d1, static_cast<float>(key[d])), hn::Set(d1, query[d]), sum);
  }
  return hn::GetLane(sum);
}

float Score(const float* query, EntryPointer key, int64_t head_dim) {
  return key.type() == EntryType::kFloat32 ? ScoreOf(query, key.As<float>(), head_dim)
                                           : ScoreOf(query, key.As<BFloat16>(), head_dim);
}

// packed_query = [padded_dim]; tile = scratch [padded_dim, kTileKeys].
template <typename T>
void ScoresOf(const float* packed_query, int64_t head_dim, std::span<const EntryPointer> keys,
              float* tile, float* scores) {
  const int64_t padded_dim = PaddedDim(head_dim);
  const T* rows[kTileKeys];
  HWY_ALIGN float row[kTileKeys];
  for (size_t begin = 0; begin < keys.size(); begin += kTileKeys) {
    const int64_t n = std::min<int64_t>(kTileKeys, static_cast<int64_t>(keys.size() - begin));
    for (int64_t j = 0; j < n; ++j) rows[j] = keys[begin + static_cast<size_t>(j)].As<T>();
    std::fill(rows + n, rows + kTileKeys, rows[0]);
    // Keys that lie anywhere are all waited for at once.
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t d = 0; d < head_dim; d += kLineNumbers<T>) hwy::Prefetch(rows[j] + d);
    }
    if (n <= kLanes) {
      PackTile<T>(rows, 1, head_dim, nullptr, tile);
      Floats sums[1][1];
      Multiply<1, 1>(packed_query, tile, padded_dim, sums);
      hn::Store(sums[0][0], kFloats, row);
    } else {
      PackTile<T>(rows, kColumns, head_dim, nullptr, tile);
      Floats sums[1][kColumns];
      Multiply<1, kColumns>(packed_query, tile, padded_dim, sums);
      for (int c = 0; c < kColumns; ++c) hn::Store(sums[0][c], kFloats, row + c * kLanes);
    }
    std::copy_n(row, n, scores + begin);
  }
}

// keys: at least one, all of one type.
void Scores(const float* packed_query, int64_t head_dim, std::span<const EntryPointer> keys,
            float* tile, float* scores) {
  if (keys[0].type() == EntryType::kFloat32) {
    ScoresOf<float>(packed_query, head_dim, keys, tile, scores);
  } else {
    ScoresOf<BFloat16>(packed_query, head_dim, keys, tile, scores);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(GetTileShape);
HWY_EXPORT(ScanRange);
HWY_EXPORT(Score);
HWY_EXPORT(Scores);

namespace {

// packed = groups of `group` queries, each [padded_dim, n in group].
void PackQueries(const ConstView& queries, int64_t group, float* packed) {
  const int64_t head_dim = queries.dim(2);
  const int64_t padded_dim = PaddedDim(head_dim);
  const int64_t n_queries = queries.dim(0) * queries.dim(1);
  std::fill(packed, packed + n_queries * padded_dim, 0.0f);
  for (int64_t first = 0; first < n_queries; first += group, packed += group * padded_dim) {
    const int64_t n = std::min(group, n_queries - first);
    for (int64_t q = 0; q < n; ++q) {
      const float* query = queries.As<float>() + (first + q) / queries.dim(1) * queries.stride(0) +
                           (first + q) % queries.dim(1) * queries.stride(1);
      for (int64_t d = 0; d < head_dim; ++d) {
        packed[PackedPosition(d, head_dim) * n + q] = query[d];
      }
    }
  }
}

// Large enough that handing them out costs nothing, small enough to share them evenly.
constexpr int64_t kMaxChunkKeys = 48 * 170;
constexpr int64_t kMinChunkKeys = 48 * 10;
static_assert(kMaxChunkKeys % 48 == 0, "a whole number of tiles of every CPU");

// Of the first run that has keys.
EntryType KeyType(std::span<const KeyRun> runs) {
  for (const KeyRun& run : runs) {
    if (run.n_keys > 0) return run.keys.type();
  }
  return EntryType::kBFloat16;
}

}  // namespace

absl::Status KeyScan(CpuDevice& device, const KeyScanArgs& args, TopK* best) {
  const int64_t n_queries = args.queries.dim(0) * args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  ScanPlan plan;
  plan.runs = args.runs;
  plan.n_queries = n_queries;
  plan.head_dim = head_dim;
  plan.key_type = KeyType(args.runs);
  plan.run_begin.reserve(args.runs.size() + 1);
  int64_t n_keys = 0;
  for (const KeyRun& run : args.runs) {
    plan.run_begin.push_back(n_keys);
    n_keys += run.n_keys;
  }
  plan.run_begin.push_back(n_keys);
  if (n_keys == 0 || n_queries == 0) return absl::OkStatus();

  const TileShape shape = HWY_DYNAMIC_DISPATCH(GetTileShape)();
  const int64_t padded_dim = PaddedDim(head_dim);
  ASSIGN_OR_RETURN(
      std::byte* const scratch,
      device.SharedScratch(static_cast<size_t>(n_queries * padded_dim) * sizeof(float)));
  auto* const packed_queries = reinterpret_cast<float*>(scratch);
  PackQueries(args.queries, shape.n_queries, packed_queries);
  plan.packed_queries = packed_queries;
  RETURN_IF_ERROR(
      device.ReserveThreadScratch(static_cast<size_t>(padded_dim * shape.n_keys) * sizeof(float)));

  ThreadPool& threads = device.threads();
  const int64_t n_threads = threads.n_threads();
  const int64_t chunk =
      std::clamp((n_keys / (n_threads * 4) + 47) / 48 * 48, kMinChunkKeys, kMaxChunkKeys);
  std::vector<std::unique_ptr<ScanWorker>> workers(static_cast<size_t>(n_threads));
  threads.ParallelFor(n_keys, chunk, [&](int64_t begin, int64_t end, int thread) {
    std::unique_ptr<ScanWorker>& worker = workers[static_cast<size_t>(thread)];
    if (worker == nullptr) {
      worker.reset(new ScanWorker{TopK(n_queries, best->top_k()),
                                  {},
                                  reinterpret_cast<float*>(device.thread_scratch(thread))});
      // What cannot enter the final list need not enter a thread's.
      for (int64_t query = 0; query < n_queries; ++query) {
        worker->thresholds.push_back(best->Threshold(query));
      }
    }
    HWY_DYNAMIC_DISPATCH(ScanRange)(plan, begin, end, *worker);
  });
  for (const std::unique_ptr<ScanWorker>& worker : workers) {
    if (worker != nullptr) best->Merge(worker->best);
  }
  return absl::OkStatus();
}

float KeyScore(const float* query, EntryPointer key, int64_t head_dim) {
  return HWY_DYNAMIC_DISPATCH(Score)(query, key, head_dim);
}

namespace {

// What scoring one query with keys anywhere needs, in a thread's scratch:
// [tile: padded_dim, tile keys | query: padded_dim | what follows].
struct ScoreScratch {
  explicit ScoreScratch(int64_t head_dim)
      : head_dim(head_dim),
        padded_dim(PaddedDim(head_dim)),
        tile_floats(padded_dim * HWY_DYNAMIC_DISPATCH(GetTileShape)().n_keys) {}
  // A multiple of 32.
  size_t size_bytes() const {
    return static_cast<size_t>(tile_floats + padded_dim) * sizeof(float);
  }
  // keys: of one type.
  void Score(const float* query, std::span<const EntryPointer> keys, std::byte* scratch,
             float* scores) const {
    if (keys.empty()) return;
    auto* const tile = reinterpret_cast<float*>(scratch);
    float* const packed_query = tile + tile_floats;
    std::fill_n(packed_query, padded_dim, 0.0f);
    for (int64_t d = 0; d < head_dim; ++d) packed_query[PackedPosition(d, head_dim)] = query[d];
    HWY_DYNAMIC_DISPATCH(Scores)(packed_query, head_dim, keys, tile, scores);
  }

  int64_t head_dim;
  int64_t padded_dim;
  int64_t tile_floats;
};

}  // namespace

absl::Status KeyScores(CpuDevice& device, const ConstView& query,
                       std::span<const EntryPointer> keys, std::span<float> scores) {
  const ScoreScratch layout(query.dim(0));
  RETURN_IF_ERROR(device.ReserveThreadScratch(layout.size_bytes()));
  layout.Score(query.As<float>(), keys, device.thread_scratch(0), scores.data());
  return absl::OkStatus();
}

absl::Status Rescore(CpuDevice& device, const RescoreArgs& args, std::span<TopK> best) {
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t group = n_heads / static_cast<int64_t>(best.size());
  size_t n_in_row = 0;  // at most
  for (const Candidates& found : args.candidates) n_in_row += static_cast<size_t>(found.n_per_row);
  const ScoreScratch layout(head_dim);
  const size_t keys_bytes = n_in_row * sizeof(EntryPointer);
  const size_t ids_bytes = n_in_row * sizeof(int64_t);
  RETURN_IF_ERROR(device.ReserveThreadScratch(layout.size_bytes() + keys_bytes + ids_bytes +
                                              n_in_row * sizeof(float)));
  device.threads().ParallelFor(n_queries * n_heads, 2, [&](int64_t begin, int64_t end, int thread) {
    std::byte* const scratch = device.thread_scratch(thread);
    auto* const keys = reinterpret_cast<EntryPointer*>(scratch + layout.size_bytes());
    auto* const ids = reinterpret_cast<int64_t*>(scratch + layout.size_bytes() + keys_bytes);
    auto* const scores = reinterpret_cast<float*>(ids + n_in_row);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t head = row % n_heads;
      size_t n = 0;
      for (const Candidates& found : args.candidates) {
        const auto first = static_cast<size_t>(row * found.n_per_row);
        for (size_t c = first; c < first + static_cast<size_t>(found.n_per_row); ++c) {
          if (found.ids[c] < 0) continue;
          new (keys + n) EntryPointer(args.keys.At(found.places[c], head / group, head_dim));
          ids[n++] = found.first_id + found.ids[c];
        }
      }
      layout.Score(args.queries.As<float>() + row * head_dim, {keys, n}, scratch, scores);
      // Rows of a list are apart, so threads may push into different ones at once.
      TopK& top = best[static_cast<size_t>(head / group)];
      for (size_t c = 0; c < n; ++c) {
        top.Push(row / n_heads * group + head % group, {scores[c], ids[c]});
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
