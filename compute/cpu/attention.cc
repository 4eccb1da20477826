#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "compute/cpu/attention_tile.h"
#include "compute/cpu/bf16_product.h"
#include "compute/cpu/ops.h"
#include "compute/cpu/simd_targets.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/attention.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
// clang-format on

// A tile is a block of queries, all query heads of one kv head: row r = query · group + head of
// the group. It goes through its keys block by block, keeping per row the running maximum of the
// scores, the sum of exponentials and the unnormalised output:
//   scoresᵀ [keys, rows] = K·Qᵀ       keys are broadcast as they lie, Q is transposed once a tile
//   weightsᵀ = e^(scores − maximum)   down the columns: no sums across a vector
//   output [rows, head_dim] = output · e^(old maximum − maximum) + weights·V
// Both products are one kernel. With a few rows only (decoding), most lanes of scoresᵀ would be
// padding: there scores are dot products, [rows, keys], all keys of the tile at once. Tiles depend
// on the shapes alone, so results do not depend on the number of threads. Where weights are 8-bit
// integers, the factors of both products may be rounded to bfloat16 (bf16_product.h): sums, maxima
// and exponentials stay float32.

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kMaxLanes>;
using V = hn::Vec<D>;
constexpr int64_t kLanes = hn::MaxLanes(D());

// 6 × 4 sums want 24 of 32 registers, 6 × 2 want 12 of 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kKernelVectors = 4;
#else
constexpr int kKernelVectors = 2;
#endif
constexpr int kKernelRows = 6;

// kLanes elements as floats.
HWY_INLINE V LoadWide(const float* from) { return hn::LoadU(D(), from); }
HWY_INLINE V LoadWide(const BFloat16* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
  return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

// c[kRows, kVectors·kLanes] = c · row_scale + a·b, or = a·b where row_scale is null.
// a(i, k) = a[i · a_row_stride + k · a_k_stride].
template <int kRows, int kVectors, typename B>
HWY_INLINE void Kernel(const float* HWY_RESTRICT a, int64_t a_row_stride, int64_t a_k_stride,
                       const B* HWY_RESTRICT b, int64_t b_stride, int64_t n_k,
                       const float* HWY_RESTRICT row_scale, float* HWY_RESTRICT c,
                       int64_t c_stride) {
  const D d;
  V sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(d);
  }
  for (int64_t k = 0; k < n_k; ++k) {
    V bk[kVectors];
    for (int v = 0; v < kVectors; ++v) bk[v] = LoadWide(b + k * b_stride + v * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const V aik = hn::Set(d, a[i * a_row_stride + k * a_k_stride]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(aik, bk[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* row = c + i * c_stride;
    for (int v = 0; v < kVectors; ++v) {
      V value = sum[i][v];
      if (row_scale != nullptr) {
        value = hn::MulAdd(hn::Load(d, row + v * kLanes), hn::Set(d, row_scale[i]), value);
      }
      hn::Store(value, d, row + v * kLanes);
    }
  }
}

template <typename B>  // float or BFloat16
struct ProductArgs {
  const float* a;
  int64_t a_row_stride;
  int64_t a_k_stride;
  const B* b;  // [n_k, n_columns]
  int64_t b_stride;
  int64_t n_k;
  const float* row_scale;  // [n_rows] or null
  float* c;                // [n_rows, n_columns], aligned rows
  int64_t c_stride;
};

template <int kVectors, typename B>
HWY_NOINLINE void ProductColumns(const ProductArgs<B>& p, int64_t n_rows, int64_t column) {
  const auto run = [&]<int kRows>(int64_t row) HWY_ATTR {
    Kernel<kRows, kVectors>(p.a + row * p.a_row_stride, p.a_row_stride, p.a_k_stride, p.b + column,
                            p.b_stride, p.n_k, p.row_scale != nullptr ? p.row_scale + row : nullptr,
                            p.c + row * p.c_stride + column, p.c_stride);
  };
  int64_t row = 0;
  for (; row + kKernelRows <= n_rows; row += kKernelRows) run.template operator()<kKernelRows>(row);
  switch (n_rows - row) {
    case 1:
      return run.template operator()<1>(row);
    case 2:
      return run.template operator()<2>(row);
    case 3:
      return run.template operator()<3>(row);
    case 4:
      return run.template operator()<4>(row);
    case 5:
      return run.template operator()<5>(row);
    default:
      return;
  }
}

// n_columns is a multiple of kLanes.
template <typename B>
HWY_INLINE void Product(const ProductArgs<B>& p, int64_t n_rows, int64_t n_columns) {
  int64_t column = 0;
  for (; column + kKernelVectors * kLanes <= n_columns; column += kKernelVectors * kLanes) {
    ProductColumns<kKernelVectors>(p, n_rows, column);
  }
  for (; column < n_columns; column += kLanes) ProductColumns<1>(p, n_rows, column);
}

void ComputeTileImpl(const AttentionTile& tile) {
  const D d;
  const AttentionInput& args = *tile.args;
  const int64_t group = args.n_heads / args.n_kv_heads;
  const int64_t head_dim = args.head_dim;
  const int64_t n_rows = tile.n_queries * group;
  const TileScratch layout(tile.n_queries, group, head_dim);
  float* const queries = tile.scratch + layout.queries;  // [head_dim, rows]
  float* const scores = tile.scratch + layout.scores;    // [keys, rows], then e^…
  float* const values = tile.scratch + layout.values;    // [keys, padded head_dim]
  float* const output = tile.scratch + layout.output;    // [rows, padded head_dim]
  float* const maximum = tile.scratch + layout.maximum;
  float* const sum = tile.scratch + layout.sum;
  float* const correction = tile.scratch + layout.correction;
  // The block's keys where they are not read as they lie: as pairs if tile.in_bf16, else widened.
  float* const wide_keys = tile.scratch + layout.keys;
  auto* const key_pairs = reinterpret_cast<uint32_t*>(wide_keys);
  // Relative to the last key of the first query, so that floats hold it exactly.
  float* const last_visible = tile.scratch + layout.last_visible;
  const int64_t scores_stride = layout.rows + kScoresPad;

  // The last key that a query sees.
  const auto visible = [&](int64_t query) {
    return args.causal ? std::min(tile.last_key - 1, args.n_keys - args.n_queries + query)
                       : tile.last_key - 1;
  };
  const int64_t last_of_first = visible(tile.first_query);
  const int64_t last_of_all = visible(tile.first_query + tile.n_queries - 1);

  for (int64_t q = 0; q < tile.n_queries; ++q) {
    for (int64_t g = 0; g < group; ++g) {
      const float* query =
          args.queries +
          ((tile.first_query + q) * args.n_heads + tile.kv_head * group + g) * head_dim;
      const int64_t row = q * group + g;
      for (int64_t i = 0; i < head_dim; ++i) queries[i * layout.rows + row] = query[i] * args.scale;
      last_visible[row] = static_cast<float>(visible(tile.first_query + q) - last_of_first);
    }
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    std::fill(queries + i * layout.rows + n_rows, queries + (i + 1) * layout.rows, 0.0f);
  }
  if (tile.in_bf16) PackRowPairs(queries, head_dim / 2, layout.rows, layout.rows);
  std::fill(last_visible + n_rows, last_visible + layout.rows,
            static_cast<float>(last_of_all - last_of_first));
  std::fill(maximum, maximum + layout.rows, kMinusInfinity);
  std::fill(sum, sum + layout.rows, 0.0f);
  std::fill(output, output + layout.rows * layout.head_dim, 0.0f);

  for (int64_t first = tile.first_key; first <= last_of_all; first += kKeysPerBlock) {
    const int64_t n_keys = std::min(kKeysPerBlock, last_of_all + 1 - first);
    if (tile.in_bf16) {
      for (int64_t key = 0; key < n_keys; ++key) {
        uint32_t* const pairs = key_pairs + key * (head_dim / 2);
        if (args.in_bf16) {
          std::memcpy(pairs, args.keys.At<BFloat16>(first + key, tile.kv_head),
                      static_cast<size_t>(head_dim) * sizeof(BFloat16));
        } else {
          PackNeighbours(args.keys.At<float>(first + key, tile.kv_head), head_dim, pairs);
        }
      }
      Bf16Product({.a = key_pairs,
                   .a_row_stride = head_dim / 2,
                   .a_k_stride = 1,
                   .b = reinterpret_cast<const uint32_t*>(queries),
                   .b_stride = layout.rows,
                   .n_pairs = head_dim / 2,
                   .add_to_c = false,
                   .c = scores,
                   .c_stride = scores_stride},
                  n_keys, layout.rows);
    } else {
      const float* block_keys = wide_keys;
      int64_t key_stride = head_dim;
      if (args.in_bf16) {
        for (int64_t key = 0; key < n_keys; ++key) {
          WidenRow(args.keys.At<BFloat16>(first + key, tile.kv_head), head_dim,
                   wide_keys + key * head_dim);
        }
      } else {
        block_keys = args.keys.At<float>(first, tile.kv_head);
        key_stride = args.keys.token_stride;
      }
      Product<float>({.a = block_keys,
                      .a_row_stride = key_stride,
                      .a_k_stride = 1,
                      .b = queries,
                      .b_stride = layout.rows,
                      .n_k = head_dim,
                      .row_scale = nullptr,
                      .c = scores,
                      .c_stride = scores_stride},
                     n_keys, layout.rows);
    }
    if (first + n_keys - 1 > last_of_first) {
      for (int64_t key = std::max<int64_t>(0, last_of_first + 1 - first); key < n_keys; ++key) {
        const V position = hn::Set(d, static_cast<float>(first + key - last_of_first));
        float* row_scores = scores + key * scores_stride;
        for (int64_t r = 0; r < layout.rows; r += kLanes) {
          const V score = hn::Load(d, row_scores + r);
          const auto is_visible = hn::Le(position, hn::Load(d, last_visible + r));
          hn::Store(hn::IfThenElse(is_visible, score, hn::Set(d, kMinusInfinity)), d,
                    row_scores + r);
        }
      }
    }
    for (int64_t r = 0; r < layout.rows; r += kLanes) {
      const V old_maximum = hn::Load(d, maximum + r);
      V new_maximum = old_maximum;
      for (int64_t key = 0; key < n_keys; ++key) {
        new_maximum = hn::Max(new_maximum, hn::Load(d, scores + key * scores_stride + r));
      }
      // A row that has seen no key yet: −inf − (−inf) would be NaN.
      const V finite = hn::Max(new_maximum, hn::Set(d, std::numeric_limits<float>::lowest()));
      const V factor = hn::Exp(d, hn::Sub(old_maximum, finite));
      V total = hn::Mul(hn::Load(d, sum + r), factor);
      for (int64_t key = 0; key < n_keys; ++key) {
        float* cell = scores + key * scores_stride + r;
        const V weight = hn::Exp(d, hn::Sub(hn::Load(d, cell), finite));
        total = hn::Add(total, weight);
        hn::Store(weight, d, cell);
      }
      hn::Store(new_maximum, d, maximum + r);
      hn::Store(factor, d, correction + r);
      hn::Store(total, d, sum + r);
    }
    for (int64_t key = 0; key < n_keys; ++key) {
      float* row = values + key * layout.head_dim;
      if (args.in_bf16) {
        WidenRow(args.values.At<BFloat16>(first + key, tile.kv_head), head_dim, row);
      } else {
        WidenRow(args.values.At<float>(first + key, tile.kv_head), head_dim, row);
      }
      std::fill(row + head_dim, row + layout.head_dim, 0.0f);
    }
    if (tile.in_bf16) {
      if (n_keys % 2 != 0) {
        std::fill_n(scores + n_keys * scores_stride, layout.rows, 0.0f);
        std::fill_n(values + n_keys * layout.head_dim, layout.head_dim, 0.0f);
      }
      const int64_t n_pairs = (n_keys + 1) / 2;
      PackRowPairs(scores, n_pairs, layout.rows, scores_stride);
      PackRowPairs(values, n_pairs, layout.head_dim, layout.head_dim);
      for (int64_t r = 0; r < n_rows; ++r) {
        const V factor = hn::Set(d, correction[r]);
        float* const row = output + r * layout.head_dim;
        for (int64_t i = 0; i < layout.head_dim; i += kLanes) {
          hn::Store(hn::Mul(hn::Load(d, row + i), factor), d, row + i);
        }
      }
      Bf16Product({.a = reinterpret_cast<const uint32_t*>(scores),
                   .a_row_stride = 1,
                   .a_k_stride = scores_stride,
                   .b = reinterpret_cast<const uint32_t*>(values),
                   .b_stride = layout.head_dim,
                   .n_pairs = n_pairs,
                   .add_to_c = true,
                   .c = output,
                   .c_stride = layout.head_dim},
                  n_rows, layout.head_dim);
    } else {
      Product<float>({.a = scores,
                      .a_row_stride = 1,
                      .a_k_stride = scores_stride,
                      .b = values,
                      .b_stride = layout.head_dim,
                      .n_k = n_keys,
                      .row_scale = correction,
                      .c = output,
                      .c_stride = layout.head_dim},
                     n_rows, layout.head_dim);
    }
  }

  for (int64_t q = 0; q < tile.n_queries; ++q) {
    for (int64_t g = 0; g < group; ++g) {
      const int64_t row = q * group + g;
      const int64_t out_row = (tile.first_query + q) * args.n_heads + tile.kv_head * group + g;
      const float inverse = sum[row] > 0.0f ? 1.0f / sum[row] : 0.0f;
      const float* from = output + row * layout.head_dim;
      float* to = tile.output + out_row * head_dim;
      for (int64_t i = 0; i < head_dim; ++i) to[i] = from[i] * inverse;
      if (tile.lse != nullptr) {
        tile.lse[out_row] = sum[row] > 0.0f ? maximum[row] + std::log(sum[row]) : kMinusInfinity;
      }
    }
  }
}

template <typename T>
float Dot(const float* HWY_RESTRICT a, const T* HWY_RESTRICT b, int64_t n) {
  const D d;
  V sum0 = hn::Zero(d);
  V sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    sum0 = hn::MulAdd(hn::LoadU(d, a + i), LoadWide(b + i), sum0);
    sum1 = hn::MulAdd(hn::LoadU(d, a + i + kLanes), LoadWide(b + i + kLanes), sum1);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < n; ++i) sum += a[i] * static_cast<float>(b[i]);
  return sum;
}

#if HWY_TARGET != HWY_SCALAR

// scores[i] = scale · <query, key i> for kLanes keys: the sums across lanes of all keys together,
// by adding neighbours of two vectors into one until one is left.
template <typename T>
HWY_INLINE void ScoresOfVector(const float* HWY_RESTRICT query, const T* HWY_RESTRICT keys,
                               int64_t stride, int64_t head_dim, float scale,
                               float* HWY_RESTRICT scores) {
  const D d;
  V sums[kLanes];
  for (int64_t key = 0; key < kLanes; ++key) {
    V sum = hn::Mul(hn::LoadU(d, query), LoadWide(keys + key * stride));
    for (int64_t i = kLanes; i < head_dim; i += kLanes) {
      sum = hn::MulAdd(hn::LoadU(d, query + i), LoadWide(keys + key * stride + i), sum);
    }
    sums[key] = sum;
  }
  for (int64_t n = kLanes / 2; n > 0; n /= 2) {
    for (int64_t i = 0; i < n; ++i) {
      const V first = sums[2 * i];
      const V second = sums[2 * i + 1];
      sums[i] = hn::Add(hn::ConcatEven(d, second, first), hn::ConcatOdd(d, second, first));
    }
  }
  hn::StoreU(hn::Mul(sums[0], hn::Set(d, scale)), d, scores);
}

#endif  // HWY_TARGET != HWY_SCALAR

// scores[n] → e^(scores − maximum), in place; the padding up to a whole vector is overwritten.
struct RowSoftmax {
  float maximum;
  float sum;
};
HWY_INLINE RowSoftmax ExponentialsOfRow(float* scores, int64_t n) {
  const D d;
  std::fill(scores + n, scores + RoundUp(n, kLanes), kMinusInfinity);
  V maxima = hn::Set(d, kMinusInfinity);
  for (int64_t i = 0; i < n; i += kLanes) maxima = hn::Max(maxima, hn::Load(d, scores + i));
  const float maximum = hn::GetLane(hn::MaxOfLanes(d, maxima));
  V sum = hn::Zero(d);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V weight = hn::Exp(d, hn::Sub(hn::Load(d, scores + i), hn::Set(d, maximum)));
    sum = hn::Add(sum, weight);
    hn::Store(weight, d, scores + i);
  }
  return {maximum, hn::GetLane(hn::SumOfLanes(d, sum))};
}

// Product() of weights with values as they lie where the rows are whole vectors, else copied and
// padded.
template <typename T>
HWY_INLINE void MultiplyValues(const float* weights, const T* values, int64_t stride,
                               int64_t n_keys, int64_t head_dim, float* padded, int64_t n_rows,
                               float* output) {
  const int64_t padded_dim = RoundUp(head_dim, kMaxLanes);
  if (padded_dim == head_dim) {
    Product<T>({.a = weights,
                .a_row_stride = kKeysPerSplit,
                .a_k_stride = 1,
                .b = values,
                .b_stride = stride,
                .n_k = n_keys,
                .row_scale = nullptr,
                .c = output,
                .c_stride = padded_dim},
               n_rows, padded_dim);
    return;
  }
  for (int64_t key = 0; key < n_keys; ++key) {
    float* const row = padded + key * padded_dim;
    WidenRow(values + key * stride, head_dim, row);
    std::fill(row + head_dim, row + padded_dim, 0.0f);
  }
  Product<float>({.a = weights,
                  .a_row_stride = kKeysPerSplit,
                  .a_k_stride = 1,
                  .b = padded,
                  .b_stride = padded_dim,
                  .n_k = n_keys,
                  .row_scale = nullptr,
                  .c = output,
                  .c_stride = padded_dim},
                 n_rows, padded_dim);
}

// At most kFewRows rows and kKeysPerSplit keys.
template <typename T>
HWY_INLINE void ComputeFewRowsTile(const AttentionTile& tile) {
  const AttentionInput& args = *tile.args;
  const int64_t group = args.n_heads / args.n_kv_heads;
  const int64_t head_dim = args.head_dim;
  const int64_t key_stride = args.keys.token_stride;
  const int64_t value_stride = args.values.token_stride;
  const int64_t n_keys = tile.last_key - tile.first_key;
  const int64_t n_rows = tile.n_queries * group;
  const FewRowsScratch layout(n_rows, head_dim);
  float* const scores = tile.scratch + layout.scores;  // [n_rows, kKeysPerSplit], then e^…
  float* const output = tile.scratch + layout.output;  // [n_rows, padded head_dim]
  const T* const keys = args.keys.At<T>(tile.first_key, tile.kv_head);
  const T* const values = args.values.At<T>(tile.first_key, tile.kv_head);
  const auto out_row = [&](int64_t row) {
    return (tile.first_query + row / group) * args.n_heads + tile.kv_head * group + row % group;
  };

  int64_t key = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; key + kLanes <= n_keys && head_dim % kLanes == 0; key += kLanes) {
    // Rows of a head lie apart, where the processor does not see a stream.
    for (int64_t k = 0; k < kLanes; ++k) {
      for (int64_t i = 0; i < head_dim; i += 64 / sizeof(T)) {
        hwy::Prefetch(keys + (key + kLanes + k) * key_stride + i);
        hwy::Prefetch(values + (key + k) * value_stride + i);
      }
    }
    for (int64_t row = 0; row < n_rows; ++row) {
      ScoresOfVector(args.queries + out_row(row) * head_dim, keys + key * key_stride, key_stride,
                     head_dim, args.scale, scores + row * kKeysPerSplit + key);
    }
  }
#endif
  for (; key < n_keys; ++key) {
    for (int64_t row = 0; row < n_rows; ++row) {
      scores[row * kKeysPerSplit + key] = args.scale * Dot(args.queries + out_row(row) * head_dim,
                                                           keys + key * key_stride, head_dim);
    }
  }
  RowSoftmax softmax[kFewRows];
  for (int64_t row = 0; row < n_rows; ++row) {
    float* const row_scores = scores + row * kKeysPerSplit;
    const int64_t query = tile.first_query + row / group;
    const int64_t last_visible =
        args.causal ? args.n_keys - args.n_queries + query : args.n_keys - 1;
    const int64_t n_visible = std::clamp<int64_t>(last_visible + 1 - tile.first_key, 0, n_keys);
    softmax[row] =
        n_visible > 0 ? ExponentialsOfRow(row_scores, n_visible) : RowSoftmax{kMinusInfinity, 0.0f};
    std::fill(row_scores + n_visible, row_scores + n_keys, 0.0f);
  }
  MultiplyValues(scores, values, value_stride, n_keys, head_dim, tile.scratch + layout.values,
                 n_rows, output);
  for (int64_t row = 0; row < n_rows; ++row) {
    const auto& [maximum, sum] = softmax[row];
    const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
    const float* from = output + row * layout.head_dim;
    float* to = tile.output + out_row(row) * head_dim;
    for (int64_t i = 0; i < head_dim; ++i) to[i] = from[i] * inverse;
    if (tile.lse != nullptr) {
      tile.lse[out_row(row)] = sum > 0.0f ? maximum + std::log(sum) : kMinusInfinity;
    }
  }
}

void ComputeFewRowsTileImpl(const AttentionTile& tile) {
  if (tile.args->in_bf16) {
    ComputeFewRowsTile<BFloat16>(tile);
  } else {
    ComputeFewRowsTile<float>(tile);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(ComputeTileImpl);
HWY_EXPORT(ComputeFewRowsTileImpl);

namespace {

// Rows of a tile (queries × group): enough that transposing queries and copying values are small
// beside the products, few enough that scores and output stay in the L2 cache.
constexpr int64_t kRowsPerTile = 192;

// How the work of one AttentionArgs is cut into items.
struct AttentionPlan {
  explicit AttentionPlan(const AttentionArgs& attention)
      : input(attention), output(attention.output.As<float>()), lse(attention.lse.As<float>()) {
    const int64_t group = input.n_heads / input.n_kv_heads;
    queries_per_tile = std::min(input.n_queries, std::max<int64_t>(1, kRowsPerTile / group));
    n_tiles = (input.n_queries + queries_per_tile - 1) / queries_per_tile;
    n_splits = input.n_queries <= kFewQueries
                   ? std::max<int64_t>(1, (input.n_keys + kKeysPerSplit - 1) / kKeysPerSplit)
                   : 1;
    keys_per_split = n_splits > 1 ? kKeysPerSplit : input.n_keys;
    n_out_rows = input.n_queries * input.n_heads;
    partial_floats = n_out_rows * (input.head_dim + 1);
    has_few_rows = input.n_queries * group <= kFewRows;
    scratch_floats = has_few_rows ? FewRowsScratch(input.n_queries * group, input.head_dim).total
                                  : TileScratch(queries_per_tile, group, input.head_dim).total;
  }
  int64_t n_items() const { return n_splits * n_tiles * input.n_kv_heads; }
  int64_t shared_floats() const {
    return n_splits > 1 ? partial_floats * (n_splits - 1) + n_out_rows : 0;
  }
  // shared_floats(): the partials of the splits after the first, output [n_out_rows, head_dim] and
  // lse [n_out_rows] each, and the lse of the first where nobody else wants it.
  void UseShared(float* shared) {
    if (n_splits == 1) return;
    partials = shared;
    if (lse == nullptr) lse = partials + partial_floats * (n_splits - 1);
  }
  float* Partial(int64_t split) const { return partials + (split - 1) * partial_floats; }

  AttentionInput input;
  float* output;
  float* lse;
  int64_t queries_per_tile, n_tiles, n_splits, keys_per_split;
  int64_t n_out_rows, partial_floats, scratch_floats;
  bool has_few_rows;
  float* partials = nullptr;
};

void ComputeItem(const AttentionPlan& plan, int64_t item, bool in_bf16, std::byte* scratch) {
  const AttentionInput& args = plan.input;
  // The last queries of a causal window see the most keys: they go first.
  const int64_t tile = plan.n_tiles - 1 - item / args.n_kv_heads % plan.n_tiles;
  const int64_t split = item / args.n_kv_heads / plan.n_tiles;
  const int64_t first_query = tile * plan.queries_per_tile;
  float* const partial = split > 0 ? plan.Partial(split) : nullptr;
  const AttentionTile work{
      .args = &args,
      .kv_head = item % args.n_kv_heads,
      .first_query = first_query,
      .n_queries = std::min(plan.queries_per_tile, args.n_queries - first_query),
      .first_key = split * plan.keys_per_split,
      .last_key = std::min(args.n_keys, (split + 1) * plan.keys_per_split),
      .output = partial != nullptr ? partial : plan.output,
      .lse = partial != nullptr ? partial + plan.n_out_rows * args.head_dim : plan.lse,
      .in_bf16 = in_bf16 && args.head_dim % 2 == 0,
      .scratch = reinterpret_cast<float*>(scratch)};
  if (plan.has_few_rows) {
    HWY_DYNAMIC_DISPATCH(ComputeFewRowsTileImpl)(work);
  } else {
    HWY_DYNAMIC_DISPATCH(ComputeTileImpl)(work);
  }
}

absl::Status MergeSplits(CpuDevice& device, const AttentionPlan& plan) {
  const AttentionInput& args = plan.input;
  for (int64_t split = 1; split < plan.n_splits; ++split) {
    float* const partial = plan.Partial(split);
    const View partial_output(partial, {args.n_queries, args.n_heads, args.head_dim});
    const View partial_lse(partial + plan.n_out_rows * args.head_dim,
                           {args.n_queries, args.n_heads});
    RETURN_IF_ERROR(MergePartials(
        device, {.output = View(plan.output, {args.n_queries, args.n_heads, args.head_dim}),
                 .lse = View(plan.lse, {args.n_queries, args.n_heads}),
                 .other_output = partial_output,
                 .other_lse = partial_lse}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AttentionTogether(CpuDevice& device, std::span<const AttentionArgs> attentions) {
  std::vector<AttentionPlan> plans;
  std::vector<int64_t> first_item = {0};  // [n_plans + 1]
  int64_t scratch_floats = 0, shared_floats = 0;
  for (const AttentionArgs& attention : attentions) {
    const AttentionPlan& plan = plans.emplace_back(attention);
    first_item.push_back(first_item.back() + plan.n_items());
    scratch_floats = std::max(scratch_floats, plan.scratch_floats);
    shared_floats += plan.shared_floats();
  }
  RETURN_IF_ERROR(device.ReserveThreadScratch(static_cast<size_t>(scratch_floats) * sizeof(float)));
  if (shared_floats > 0) {
    ASSIGN_OR_RETURN(std::byte* const scratch,
                     device.SharedScratch(static_cast<size_t>(shared_floats) * sizeof(float)));
    auto* shared = reinterpret_cast<float*>(scratch);
    for (AttentionPlan& plan : plans) {
      plan.UseShared(shared);
      shared += plan.shared_floats();
    }
  }
  const bool in_bf16 = device.precision() == Precision::kInt8 && HasBf16Product();
  device.threads().ParallelFor(first_item.back(), 1, [&](int64_t item, int64_t, int thread) {
    const auto next = std::upper_bound(first_item.begin(), first_item.end(), item);
    const auto i = static_cast<size_t>(next - first_item.begin()) - 1;
    ComputeItem(plans[i], item - first_item[i], in_bf16, device.thread_scratch(thread));
  });
  for (const AttentionPlan& plan : plans) RETURN_IF_ERROR(MergeSplits(device, plan));
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
