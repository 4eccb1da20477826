// The pieces of work that attention is cut into, and what each thread needs for one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/float16.h"
#include "compute/attention.h"

namespace fovea::compute::cpu {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Keys of a block: scores [96, rows] and values [96, head_dim] stay in a 1 MiB L2, and 96 is a
// multiple of the rows of the product's kernel.
constexpr int64_t kKeysPerBlock = 96;
// Widest vector in floats: rows of scores and outputs are padded to it.
constexpr int64_t kMaxLanes = 16;
// Floats between rows of scores beyond the rows themselves: a power of two as stride would put
// the rows into the same few sets of a cache.
constexpr int64_t kScoresPad = kMaxLanes;

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Keys or values of all heads as they lie in memory.
struct Entries {
  explicit Entries(const ConstView& view)
      : data(view.As<std::byte>()), token_stride(view.stride(0)), head_stride(view.stride(1)) {}
  // Element 0 of a token and head; T is the elements' type.
  template <typename T>
  const T* At(int64_t token, int64_t head) const {
    return reinterpret_cast<const T*>(data) + token * token_stride + head * head_stride;
  }

  const std::byte* data;
  int64_t token_stride;  // in elements
  int64_t head_stride;
};

// AttentionArgs as the kernels take them.
struct AttentionInput {
  explicit AttentionInput(const AttentionArgs& args)
      : queries(args.queries.As<float>()),
        keys(args.keys),
        values(args.values),
        in_bf16(args.keys.dtype() == DType::kBF16),
        n_queries(args.queries.dim(0)),
        n_keys(args.keys.dim(0)),
        n_heads(args.queries.dim(1)),
        n_kv_heads(args.keys.dim(1)),
        head_dim(args.queries.dim(2)),
        scale(args.scale),
        causal(args.causal) {}

  const float* queries;
  Entries keys;
  Entries values;
  bool in_bf16;  // keys and values; else float32
  int64_t n_queries;
  int64_t n_keys;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
  float scale;
  bool causal;
};

inline void WidenRow(const float* from, int64_t n, float* to) { std::copy(from, from + n, to); }
inline void WidenRow(const BFloat16* from, int64_t n, float* to) {
  BFloat16ToFloat(from, to, static_cast<size_t>(n));
}

// What one thread computes at a time, and where.
struct AttentionTile {
  const AttentionInput* args = nullptr;
  int64_t kv_head = 0;
  int64_t first_query = 0;
  int64_t n_queries = 0;
  int64_t first_key = 0;  // keys [first_key, last_key), fewer where causal
  int64_t last_key = 0;
  // Output rows of query q and head h lie at ((q · n_heads + h) · head_dim).
  float* output = nullptr;
  float* lse = nullptr;  // null: not wanted
  // Both products with factors rounded to bfloat16; needs HasBf16Product and an even head_dim.
  bool in_bf16 = false;
  float* scratch = nullptr;
};

struct TileScratch {
  int64_t rows;      // padded
  int64_t head_dim;  // padded
  // Offsets in floats.
  int64_t queries, scores, values, output, maximum, sum, correction, last_visible, keys, total;

  TileScratch(int64_t n_queries, int64_t group, int64_t unpadded_head_dim) {
    rows = RoundUp(n_queries * group, kMaxLanes);
    head_dim = RoundUp(unpadded_head_dim, kMaxLanes);
    queries = 0;
    scores = queries + unpadded_head_dim * rows;
    values = scores + kKeysPerBlock * (rows + kScoresPad);
    output = values + kKeysPerBlock * head_dim;
    maximum = output + rows * head_dim;
    sum = maximum + rows;
    correction = sum + rows;
    last_visible = correction + rows;
    keys = last_visible + rows;
    total = keys + kKeysPerBlock * unpadded_head_dim;
  }
};

// With few queries (decoding) a tile a kv head would leave threads idle: the keys are split, too,
// and the partials merged in order.
constexpr int64_t kFewQueries = 16;
constexpr int64_t kKeysPerSplit = 4 * kKeysPerBlock;

// Up to here dot products beat the padding of scoresᵀ to a vector of 16 rows.
constexpr int64_t kFewRows = 8;

struct FewRowsScratch {
  int64_t head_dim;  // padded
  // Offsets in floats.
  int64_t scores, values, output, total;

  FewRowsScratch(int64_t n_rows, int64_t unpadded_head_dim) {
    head_dim = RoundUp(unpadded_head_dim, kMaxLanes);
    scores = 0;
    values = scores + n_rows * kKeysPerSplit;
    // A copy is only needed where rows of values end within a vector.
    output = values + (head_dim != unpadded_head_dim ? kKeysPerSplit * head_dim : 0);
    total = output + n_rows * head_dim;
  }
};

}  // namespace fovea::compute::cpu
