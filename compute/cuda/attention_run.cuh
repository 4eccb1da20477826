// What a block does that attends to a run of keys of one KV head: each group of eight lanes takes
// every so many-th key of it, holding a part of the dimensions of a few queries (a *row* is a query
// and a head of the KV head's group) in registers, and a running softmax of its own: maximum, sum,
// unnormalised output. Groups merge in a warp, and warps in the block.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "compute/cuda/attention.h"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kGroupLanes = 8;                    // that share a key
inline constexpr int kGroups = kWarpSize / kGroupLanes;  // of a warp
inline constexpr int kSplitWarps = 8;                    // of a block
inline constexpr int kKeysAtOnce = 4;                    // of a group: loads that are under way
inline constexpr int kMinKeysPerSplit = kSplitWarps * kGroups * kKeysAtOnce;

// A running softmax over scores that come in any order.
template <int kDims>
struct Running {
  float maximum = -INFINITY;
  float sum = 0.0f;
  float output[kDims] = {};  // Σ e^(score − maximum) · value

  __device__ void Merge(float other_maximum, float other_sum, const float* other_output) {
    const float high = fmaxf(maximum, other_maximum);
    if (high == -INFINITY) return;
    const float own = expf(maximum - high);
    const float other = expf(other_maximum - high);
    maximum = high;
    sum = sum * own + other_sum * other;
#pragma unroll
    for (int i = 0; i < kDims; ++i) output[i] = output[i] * own + other_output[i] * other;
  }
};

// What a block found for a row: partials [row, split].
struct SplitParts {
  float* maximum;  // [n_rows_all, n_splits]
  float* sum;
  float* output;  // [n_rows_all, n_splits, head_dim], unnormalised
};

// kVector elements are read at a time; a lane holds kVectors of them, vector v = lane + 8·i.
template <int kVector, int kVectors>
struct LaneDims {
  static constexpr int kDims = kVector * kVectors;
  // visit(place in the lane's array, dimension) of those that the lane holds.
  template <typename Visit>
  __device__ static void ForEach(int head_dim, Visit visit) {
    const int lane = threadIdx.x % kGroupLanes;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
      if (vector >= head_dim / kVector) continue;
#pragma unroll
      for (int i = 0; i < kVector; ++i) visit(v * kVector + i, vector * kVector + i);
    }
  }
};

// kKeysAtOnce keys into the running softmaxes of a group, one for each row. load_key(j, at) and
// load_value(j, at) give the lane's dimensions of key j; is_visible(r, j): whether row r sees it.
// kValuesAhead: values are loaded beside the keys, into registers that a kernel of many blocks has
// not. All lanes of a warp call it together: they exchange sums.
template <int kDims, int kRows, bool kValuesAhead, typename LoadKey, typename LoadValue,
          typename IsVisible>
__device__ inline void AttendToKeys(const float (&query)[kRows][kDims], LoadKey load_key,
                                    LoadValue load_value, IsVisible is_visible,
                                    Running<kDims> (&running)[kRows]) {
  float score[kRows][kKeysAtOnce];
  float at[kKeysAtOnce][kDims];
  float ahead[kKeysAtOnce][kValuesAhead ? kDims : 1];
#pragma unroll
  for (int j = 0; j < kKeysAtOnce; ++j) load_key(j, at[j]);
  if constexpr (kValuesAhead) {
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) load_value(j, ahead[j]);
  }
#pragma unroll
  for (int j = 0; j < kKeysAtOnce; ++j) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kDims; ++i) sum += query[r][i] * at[j][i];
      sum = GroupSum<kGroupLanes>(sum);
      score[r][j] = is_visible(r, j) ? sum : -INFINITY;
    }
  }
#pragma unroll
  for (int j = 0; j < kKeysAtOnce; ++j) {
    if constexpr (kValuesAhead) {
#pragma unroll
      for (int i = 0; i < kDims; ++i) at[j][i] = ahead[j][i];
    } else {
      load_value(j, at[j]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float high = running[r].maximum;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) high = fmaxf(high, score[r][j]);
    if (high == -INFINITY) continue;
    const float factor = expf(running[r].maximum - high);
    running[r].maximum = high;
    float weight[kKeysAtOnce];
    float sum = running[r].sum * factor;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      weight[j] = expf(score[r][j] - high);
      sum += weight[j];
    }
    running[r].sum = sum;
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      float output = running[r].output[i] * factor;
#pragma unroll
      for (int j = 0; j < kKeysAtOnce; ++j) output += weight[j] * at[j][i];
      running[r].output[i] = output;
    }
  }
}

// The lane's dimensions of an entry; 0 where `exists` is false.
template <typename T, int kVector, int kVectors>
__device__ inline void LoadEntry(const T* entry, int head_dim, bool exists, float* to) {
  const int lane = threadIdx.x % kGroupLanes;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int vector = lane + v * kGroupLanes;
    if (vector < head_dim / kVector && exists) {
      const auto loaded = *reinterpret_cast<const Vector<T, kVector>*>(entry + vector * kVector);
#pragma unroll
      for (int i = 0; i < kVector; ++i) to[v * kVector + i] = ToFloat(loaded.values[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) to[v * kVector + i] = 0.0f;
    }
  }
}

// The lane's dimensions of an entry as they are stored, on their way while something else is
// computed.
template <typename T, int kVector, int kVectors>
struct StoredEntry {
  Vector<T, kVector> vectors[kVectors];

  // From the second cache: what another kernel has written since this one began may be read, too.
  __device__ void Load(const T* entry, int head_dim) {
    using Words = std::conditional_t<
        sizeof(vectors[0]) == 16, uint4,
        std::conditional_t<sizeof(vectors[0]) == 8, uint2,
                           std::conditional_t<sizeof(vectors[0]) == 4, uint32_t, uint16_t>>>;
    static_assert(sizeof(Words) == sizeof(vectors[0]));
    const int lane = threadIdx.x % kGroupLanes;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
      if (vector >= head_dim / kVector) continue;
      const Words words = __ldcg(reinterpret_cast<const Words*>(entry + vector * kVector));
      memcpy(&vectors[v], &words, sizeof(words));
    }
  }
  // Of an entry in shared memory.
  __device__ void LoadShared(const T* entry, int head_dim) {
    const int lane = threadIdx.x % kGroupLanes;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
      if (vector >= head_dim / kVector) continue;
      vectors[v] = *reinterpret_cast<const Vector<T, kVector>*>(entry + vector * kVector);
    }
  }
  // As LoadEntry gives them.
  __device__ void Convert(int head_dim, bool exists, float* to) const {
    const int lane = threadIdx.x % kGroupLanes;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const bool is_there = exists && lane + v * kGroupLanes < head_dim / kVector;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        to[v * kVector + i] = is_there ? ToFloat(vectors[v].values[i]) : 0.0f;
      }
    }
  }
};

// Keys begin … end − 1 of a KV head into the running softmaxes, one for each group and row. Row r
// sees the first n_visible[r] keys; `query` is scaled already.
template <typename T, int kVector, int kVectors, int kRows, bool kValuesAhead = false>
__device__ inline void AttendToRun(const AttentionInput& in, int kv_head, int64_t begin,
                                   int64_t end, const float (&query)[kRows][kVector * kVectors],
                                   const int64_t (&n_visible)[kRows],
                                   Running<kVector * kVectors> (&running)[kRows]) {
  const int warp = threadIdx.x / kWarpSize;
  const int group = threadIdx.x % kWarpSize / kGroupLanes;
  const T* const keys = static_cast<const T*>(in.keys) + kv_head * in.key_head_stride;
  const T* const values = static_cast<const T*>(in.values) + kv_head * in.value_head_stride;
  constexpr int kStride = kSplitWarps * kGroups;
  for (int64_t first = begin; first < end; first += kStride * kKeysAtOnce) {
    const int64_t own = first + warp * kGroups + group;
    AttendToKeys<kVector * kVectors, kRows, kValuesAhead>(
        query,
        [&](int j, float* to) {
          const int64_t key = own + j * kStride;
          LoadEntry<T, kVector, kVectors>(keys + key * in.key_token_stride, in.head_dim, key < end,
                                          to);
        },
        [&](int j, float* to) {
          const int64_t key = own + j * kStride;
          LoadEntry<T, kVector, kVectors>(values + key * in.value_token_stride, in.head_dim,
                                          key < end, to);
        },
        [&](int r, int j) {
          const int64_t key = own + j * kStride;
          return key < end && key < n_visible[r];
        },
        running);
  }
}

// Merges what the groups of the block found for rows row0 … row0 + kRows − 1 of a KV head, and
// stores it as part part_of(r).
template <int kVector, int kVectors, int kRows, typename PartOf>
__device__ inline void StorePartsAs(const AttentionInput& in, int row0,
                                    Running<kVector * kVectors> (&running)[kRows], PartOf part_of,
                                    const SplitParts& parts) {
  constexpr int kDims = kVector * kVectors;
  __shared__ float maximum[kRows][kSplitWarps], sum[kRows][kSplitWarps];
  __shared__ float output[kRows][kSplitWarps][kDims * kGroupLanes];
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = min(kRows, in.n_queries * group_size - row0);
  const int warp = threadIdx.x / kWarpSize;
  const bool is_first_group = threadIdx.x % kWarpSize < kGroupLanes;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int offset = kGroupLanes; offset < kWarpSize; offset *= 2) {
      float other[kDims];
      const float other_maximum = __shfl_xor_sync(kAllLanes, running[r].maximum, offset);
      const float other_sum = __shfl_xor_sync(kAllLanes, running[r].sum, offset);
#pragma unroll
      for (int i = 0; i < kDims; ++i) {
        other[i] = __shfl_xor_sync(kAllLanes, running[r].output[i], offset);
      }
      running[r].Merge(other_maximum, other_sum, other);
    }
    if (threadIdx.x % kWarpSize == 0) {
      maximum[r][warp] = running[r].maximum;
      sum[r][warp] = running[r].sum;
    }
    if (is_first_group) {
      LaneDims<kVector, kVectors>::ForEach(
          in.head_dim, [&](int i, int dim) { output[r][warp][dim] = running[r].output[i]; });
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n_rows * in.head_dim; i += blockDim.x) {
    const int r = i / in.head_dim;
    const int dim = i % in.head_dim;
    float high = -INFINITY;
#pragma unroll
    for (int w = 0; w < kSplitWarps; ++w) high = fmaxf(high, maximum[r][w]);
    float all = 0.0f;
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kSplitWarps; ++w) {
      const float weight = high > -INFINITY ? expf(maximum[r][w] - high) : 0.0f;
      all += sum[r][w] * weight;
      total += output[r][w][dim] * weight;
    }
    const int64_t part = part_of(r);
    parts.output[part * in.head_dim + dim] = total;
    if (dim == 0) {
      parts.maximum[part] = high;
      parts.sum[part] = all;
    }
  }
}

// As part `split` of `n_splits` of each row.
template <int kVector, int kVectors, int kRows>
__device__ inline void StoreParts(const AttentionInput& in, int kv_head, int row0, int split,
                                  int n_splits, Running<kVector * kVectors> (&running)[kRows],
                                  const SplitParts& parts) {
  const int group_size = in.n_heads / in.n_kv_heads;
  StorePartsAs<kVector, kVectors, kRows>(
      in, row0, running,
      [&](int r) {
        const int row = row0 + r;
        return (static_cast<int64_t>(row / group_size) * in.n_heads + kv_head * group_size +
                row % group_size) *
                   n_splits +
               split;
      },
      parts);
}

// launch.operator()<T, kVector, kVectors, kRows>() with the widest reads that the entries allow and
// as many rows as registers hold.
template <typename T, typename Launch>
absl::Status VisitSplitShape(const AttentionInput& in, int n_rows, Launch launch) {
  const auto with_rows = [&]<int kVector, int kVectors>() -> absl::Status {
    constexpr int kMost = kVector * kVectors <= 8 ? 4 : kVector * kVectors <= 16 ? 2 : 1;
    if constexpr (kMost >= 4) {
      if (n_rows == 3) return launch.template operator()<T, kVector, kVectors, 3>();
      if (n_rows >= 4) return launch.template operator()<T, kVector, kVectors, 4>();
    }
    if constexpr (kMost >= 2) {
      if (n_rows >= 2) return launch.template operator()<T, kVector, kVectors, 2>();
    }
    return launch.template operator()<T, kVector, kVectors, 1>();
  };
  constexpr int kWide = 16 / sizeof(T);  // elements of 16 bytes
  const auto is_aligned = [&](int n) {
    const auto fits = [&](const void* data, int64_t a, int64_t b) {
      return reinterpret_cast<uintptr_t>(data) % (n * sizeof(T)) == 0 && a % n == 0 && b % n == 0;
    };
    return in.head_dim % n == 0 && fits(in.keys, in.key_token_stride, in.key_head_stride) &&
           fits(in.values, in.value_token_stride, in.value_head_stride);
  };
  const int d = in.head_dim;
  if (is_aligned(kWide)) {
    if (d <= 8 * kWide) return with_rows.template operator()<kWide, 1>();
    if (d <= 16 * kWide) return with_rows.template operator()<kWide, 2>();
    if (d <= 32 * kWide) return with_rows.template operator()<kWide, 4>();
    return with_rows.template operator()<kWide, 256 / (8 * kWide)>();
  }
  if (is_aligned(4)) {
    if (d <= 128) return with_rows.template operator()<4, 4>();
    return with_rows.template operator()<4, 8>();
  }
  return with_rows.template operator()<1, 32>();
}

}  // namespace fovea::compute::cuda
