// What kernels that attend to a memory know of it and of the queries, and how a scan goes through
// it: in *tiles*, runs of keys of a KV head, and *steps* of a tile, which a warp scores at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "compute/cuda/warp.cuh"
#include "compute/memory_attention.h"

namespace fovea::compute::cuda {

// What a query head may select from; tiles count through the parts, none spans two.
struct Part {
  const void* keys;
  const void* values;                // null: none
  int64_t key_stride, value_stride;  // elements between KV heads
  const uint64_t* allowed;
  int64_t first_position;
  int n_tokens;
  int first_tile;
};
struct Parts {
  Part part[kMaxMemoryParts];
  int n_parts;
  int n_tiles;    // of a KV head
  int tile_keys;  // a whole number of steps
};
struct Problem {
  const float* queries;  // [n_queries, n_heads, head_dim]
  int n_queries, n_heads, group, head_dim;
  int top_k;
  float scale;
  float* maxima;           // [n_queries · n_heads, maxima_per_row]: of each tile the best score
  int64_t maxima_per_row;  // all tiles, of which a scan may be given some
  uint64_t* candidates;    // [n_queries · n_heads, candidates_per_row]
  int64_t candidates_per_row;
  std::byte* extra;       // [n_queries · n_heads, extra_per_row]: of whoever asks for it
  int64_t extra_per_row;  // bytes, a multiple of 16
  float* output;          // null: none is wanted
  float* lse;
  int64_t* positions;  // or null
  float* scores;       // or null
  // Queries are answered some at a time: the first of these among all.
  int first_query = 0;
  int n_all_queries = 0;
};

// Appends a part, unless it has no tokens; its tiles follow those that there are. A part that is
// not scanned has none, and comes after those that are.
inline void AddPart(const MemoryPart& part, int64_t first_position, Parts* parts,
                    bool is_scanned = true) {
  const int64_t n = part.keys.dim(1);
  if (n == 0) return;
  parts->part[parts->n_parts++] = {.keys = part.keys.data(),
                                   .values = part.values.data(),
                                   .key_stride = part.keys.stride(0),
                                   .value_stride = part.values.stride(0),
                                   .allowed = part.allowed,
                                   .first_position = first_position,
                                   .n_tokens = static_cast<int>(n),
                                   .first_tile = parts->n_tiles};
  if (!is_scanned) return;
  parts->n_tiles += static_cast<int>((n + parts->tile_keys - 1) / parts->tile_keys);
}

// The last of n ascending numbers at(i) that is at most `number`, which at(0) is.
template <typename At>
__device__ inline int LastUpTo(int n, int64_t number, At at) {
  int low = 0;
  while (n > 1) {
    const int half = n / 2;
    if (at(low + half) <= number) low += half;
    n -= half;
  }
  return low;
}
__device__ inline int PartOfTile(const Parts& parts, int tile) {
  return LastUpTo(parts.n_parts, tile, [&](int p) { return parts.part[p].first_tile; });
}
// Positions need not ascend with the parts.
__device__ inline int PartOfPosition(const Parts& parts, int64_t position) {
  int p = 0;
  while (p + 1 < parts.n_parts && static_cast<uint64_t>(position - parts.part[p].first_position) >=
                                      static_cast<uint64_t>(parts.part[p].n_tokens)) {
    ++p;
  }
  return p;
}

// Whether a key may be selected.
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

// A step of kKeys keys of a tile, in the order in which a warp of a scan goes through them.
template <int kKeys>
struct Step {
  int tile;
  int step = 0;
  __device__ int64_t First(const Parts& parts, const Part& part) const {
    return static_cast<int64_t>(tile - part.first_tile) * parts.tile_keys + step * kKeys;
  }
  // true: the step was the last of its tile.
  __device__ bool Advance(const Parts& parts, const Part& part, int stride) {
    ++step;
    if (step * kKeys < parts.tile_keys && First(parts, part) < part.n_tokens) return false;
    step = 0;
    tile += stride;
    return true;
  }
};

// A warp goes through its tiles: from `tile` on with this stride. next(p, first) names the keys of
// part p, from `first` on, whose scores pipeline.Take() gives kDepth steps later;
// finish(p, tile, best) gets each tile's Best.
template <typename Scorer, typename Pipeline, typename Next, typename Finish>
__device__ inline void ScanTiles(const Parts& parts, int tile, int stride, Pipeline& pipeline,
                                 Next next, Finish finish) {
  using StepOf = Step<Scorer::kStepKeys>;
  StepOf ahead{tile};
  StepOf current{tile};
  const auto read_ahead = [&] {
    if (ahead.tile >= parts.n_tiles) return pipeline.NextIsNone();
    const int p = PartOfTile(parts, ahead.tile);
    next(p, ahead.First(parts, parts.part[p]));
    ahead.Advance(parts, parts.part[p], stride);
  };
  for (int i = 0; i < Pipeline::kDepth; ++i) read_ahead();
  typename Scorer::Best best;
  while (current.tile < parts.n_tiles) {
    const auto scores = pipeline.Take();
    read_ahead();
    const int p = PartOfTile(parts, current.tile);
    const Part& part = parts.part[p];
    const int64_t first = current.First(parts, part);
    if (part.allowed == nullptr && first + Scorer::kStepKeys <= part.n_tokens) {
      best.Update(scores, [](int) { return true; });
    } else {
      best.Update(scores, [&](int i) { return IsAllowed(part, first + i); });
    }
    const int of = current.tile;
    if (!current.Advance(parts, part, stride)) continue;
    finish(p, of, best);
    best = typename Scorer::Best();
  }
}

}  // namespace fovea::compute::cuda
