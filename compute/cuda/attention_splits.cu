// Attention of a few queries to many keys. Each block takes a run of keys of one KV head; each
// group of eight lanes takes every so many-th key of it, holding a part of the dimensions of a few
// queries (a *row* is a query and a head of the KV head's group) in registers, and a running
// softmax of its own: maximum, sum, unnormalised output. Groups merge in a warp, warps in a block,
// and blocks in a second kernel.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/attention.h"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kGroupLanes = 8;                    // that share a key
constexpr int kGroups = kWarpSize / kGroupLanes;  // of a warp
constexpr int kWarps = 8;                         // of a block
constexpr int kKeysAtOnce = 4;                    // of a group: loads that are under way
constexpr int kMinKeysPerSplit = kWarps * kGroups * kKeysAtOnce;

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

// kVector elements are read at a time; a lane holds kVectors of them, vector v = lane + 8·i. Rows
// row0 … row0 + kRows − 1 of the KV head.
template <typename T, int kVector, int kVectors, int kRows>
__global__ void __launch_bounds__(kWarps* kWarpSize, kVector* kVectors <= 16 ? 2 : 1)
    SplitKernel(AttentionInput in, int64_t keys_per_split, SplitParts parts) {
  constexpr int kDims = kVector * kVectors;
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = in.n_queries * group_size;
  const int kv_head = blockIdx.y;
  const int row0 = blockIdx.z * kRows;
  const int split = blockIdx.x;
  const int warp = threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kGroupLanes;
  const int group = threadIdx.x % kWarpSize / kGroupLanes;
  const int n_vectors = in.head_dim / kVector;
  const T* const keys = static_cast<const T*>(in.keys) + kv_head * in.key_head_stride;
  const T* const values = static_cast<const T*>(in.values) + kv_head * in.value_head_stride;

  const auto head_of = [&](int row) { return kv_head * group_size + row % group_size; };
  float query[kRows][kDims];
  int64_t n_visible[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = min(row0 + r, n_rows - 1);
    const int position = row / group_size;
    n_visible[r] = in.causal ? in.n_keys - in.n_queries + position + 1 : in.n_keys;
    const float* const from =
        in.queries + (static_cast<int64_t>(position) * in.n_heads + head_of(row)) * in.head_dim;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        query[r][v * kVector + i] =
            vector < n_vectors ? from[vector * kVector + i] * in.scale : 0.0f;
      }
    }
  }

  Running<kDims> running[kRows];
  const int64_t begin = split * keys_per_split;
  const int64_t end = min(begin + keys_per_split, in.n_keys);
  const auto load = [&](const T* from, int64_t stride, int64_t key, float* to) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
      if (vector < n_vectors && key < end) {
        const auto loaded =
            *reinterpret_cast<const Vector<T, kVector>*>(from + key * stride + vector * kVector);
#pragma unroll
        for (int i = 0; i < kVector; ++i) to[v * kVector + i] = ToFloat(loaded.values[i]);
      } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) to[v * kVector + i] = 0.0f;
      }
    }
  };
  constexpr int kStride = kWarps * kGroups;
  // All lanes of a warp go round equally often: they exchange sums.
  for (int64_t first = begin; first < end; first += kStride * kKeysAtOnce) {
    float score[kRows][kKeysAtOnce];
    float at[kKeysAtOnce][kDims];
    const int64_t own = first + warp * kGroups + group;
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      load(keys, in.key_token_stride, own + j * kStride, at[j]);
    }
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < kDims; ++i) sum += query[r][i] * at[j][i];
        sum = GroupSum<kGroupLanes>(sum);
        const int64_t key = own + j * kStride;
        score[r][j] = key < end && key < n_visible[r] ? sum : -INFINITY;
      }
    }
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      load(values, in.value_token_stride, own + j * kStride, at[j]);
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

  // Groups of a warp, then warps of the block.
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
  }
  __shared__ float shared_maximum[kWarps], shared_sum[kWarps];
  __shared__ float shared_output[kWarps][kDims * kGroupLanes];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    __syncthreads();
    if (group == 0) {
      if (lane == 0) {
        shared_maximum[warp] = running[r].maximum;
        shared_sum[warp] = running[r].sum;
      }
#pragma unroll
      for (int i = 0; i < kDims; ++i)
        shared_output[warp][i * kGroupLanes + lane] = running[r].output[i];
    }
    __syncthreads();
    if (warp != 0 || group != 0 || row0 + r >= n_rows) continue;
    for (int w = 1; w < kWarps; ++w) {
      float other[kDims];
#pragma unroll
      for (int i = 0; i < kDims; ++i) other[i] = shared_output[w][i * kGroupLanes + lane];
      running[r].Merge(shared_maximum[w], shared_sum[w], other);
    }
    const int row = row0 + r;
    const int64_t out_row = static_cast<int64_t>(row / group_size) * in.n_heads + head_of(row);
    const int64_t part = out_row * gridDim.x + split;
    if (lane == 0) {
      parts.maximum[part] = running[r].maximum;
      parts.sum[part] = running[r].sum;
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int vector = lane + v * kGroupLanes;
      if (vector >= n_vectors) continue;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        parts.output[part * in.head_dim + vector * kVector + i] =
            running[r].output[v * kVector + i];
      }
    }
  }
}

// A block a row of [n_queries · n_heads].
__global__ void MergeSplitsKernel(SplitParts parts, int n_splits, int head_dim, float* output,
                                  float* lse) {
  __shared__ float shared[kWarpSize];
  const int64_t row = blockIdx.x;
  const float* const maximum = parts.maximum + row * n_splits;
  float high = -INFINITY;
  for (int s = threadIdx.x; s < n_splits; s += blockDim.x) high = fmaxf(high, maximum[s]);
  high = GroupMax(high);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = high;
  __syncthreads();
  high = -INFINITY;
  for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) high = fmaxf(high, shared[w]);
  __syncthreads();
  float sum = 0.0f;
  if (high > -INFINITY) {
    for (int s = threadIdx.x; s < n_splits; s += blockDim.x) {
      sum += parts.sum[row * n_splits + s] * expf(maximum[s] - high);
    }
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0 && lse != nullptr) lse[row] = sum > 0.0f ? high + logf(sum) : -INFINITY;
  const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float total = 0.0f;
    for (int s = 0; s < n_splits && high > -INFINITY; ++s) {
      total += parts.output[(row * n_splits + s) * head_dim + i] * expf(maximum[s] - high);
    }
    output[row * head_dim + i] = total * factor;
  }
}

template <typename T, int kVector, int kVectors>
void Launch(const AttentionInput& in, int n_rows, int64_t keys_per_split, int n_splits,
            const SplitParts& parts, cudaStream_t stream) {
  const auto launch = [&]<int kRows>() {
    const dim3 grid(static_cast<unsigned>(n_splits), static_cast<unsigned>(in.n_kv_heads),
                    static_cast<unsigned>((n_rows + kRows - 1) / kRows));
    SplitKernel<T, kVector, kVectors, kRows>
        <<<grid, kWarps * kWarpSize, 0, stream>>>(in, keys_per_split, parts);
  };
  // As many rows as registers hold.
  constexpr int kMost = kVector * kVectors <= 8 ? 4 : kVector * kVectors <= 16 ? 2 : 1;
  if constexpr (kMost >= 4) {
    if (n_rows == 3) return launch.template operator()<3>();
    if (n_rows >= 4) return launch.template operator()<4>();
  }
  if constexpr (kMost >= 2) {
    if (n_rows >= 2) return launch.template operator()<2>();
  }
  launch.template operator()<1>();
}

template <typename T>
void LaunchForDims(const AttentionInput& in, int n_rows, int64_t keys_per_split, int n_splits,
                   const SplitParts& parts, cudaStream_t stream) {
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
    if (d <= 8 * kWide) {
      return Launch<T, kWide, 1>(in, n_rows, keys_per_split, n_splits, parts, stream);
    }
    if (d <= 16 * kWide) {
      return Launch<T, kWide, 2>(in, n_rows, keys_per_split, n_splits, parts, stream);
    }
    return Launch<T, kWide, 256 / (8 * kWide)>(in, n_rows, keys_per_split, n_splits, parts, stream);
  }
  if (is_aligned(4)) {
    if (d <= 128) return Launch<T, 4, 4>(in, n_rows, keys_per_split, n_splits, parts, stream);
    return Launch<T, 4, 8>(in, n_rows, keys_per_split, n_splits, parts, stream);
  }
  return Launch<T, 1, 32>(in, n_rows, keys_per_split, n_splits, parts, stream);
}

}  // namespace

absl::Status AttendInSplits(CudaDevice& device, const AttentionInput& in, bool in_bf16) {
  const int n_rows = in.n_queries * (in.n_heads / in.n_kv_heads);
  // Two blocks a multiprocessor, or as many as there are keys for.
  const int64_t wanted = std::max(1, 2 * device.n_multiprocessors() / in.n_kv_heads);
  const int64_t possible = (in.n_keys + kMinKeysPerSplit - 1) / kMinKeysPerSplit;
  const auto n_splits = static_cast<int>(std::clamp<int64_t>(possible, 1, wanted));
  const int64_t keys_per_split = (in.n_keys + n_splits - 1) / n_splits;
  const int64_t n_parts = int64_t{in.n_queries} * in.n_heads * n_splits;
  ASSIGN_OR_RETURN(
      std::byte* const scratch,
      device.Scratch(static_cast<size_t>(n_parts * (in.head_dim + 2)) * sizeof(float)));
  auto* const floats = reinterpret_cast<float*>(scratch);
  const SplitParts parts{floats, floats + n_parts, floats + 2 * n_parts};
  if (in_bf16) {
    LaunchForDims<__nv_bfloat16>(in, n_rows, keys_per_split, n_splits, parts, device.stream());
  } else {
    LaunchForDims<float>(in, n_rows, keys_per_split, n_splits, parts, device.stream());
  }
  MergeSplitsKernel<<<static_cast<unsigned>(in.n_queries * in.n_heads), 64, 0, device.stream()>>>(
      parts, n_splits, in.head_dim, in.output, in.lse);
  return LaunchStatus("Attention");
}

}  // namespace fovea::compute::cuda
