// Attention of many queries: a block takes kQueries queries of one head through all their keys,
// kKeys at a time, with a running softmax of each query (FlashAttention, Dao et al. 2022), in
// float32. Scores: a thread computes two queries by four keys; output: two queries by every eighth
// dimension.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/attention.h"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kQueries = 64;
constexpr int kKeys = 32;
constexpr int kThreads = 256;
constexpr int kThreadsAcross = 8;                       // over keys, and over dimensions
constexpr int kRowStep = kThreads / kThreadsAcross;     // between a thread's two queries
constexpr int kRowsPerThread = kQueries / kRowStep;     // 2
constexpr int kKeysPerThread = kKeys / kThreadsAcross;  // 4
static_assert(kRowsPerThread == 2 && kKeysPerThread == 4);

// Floats of shared memory: queries [kQueries][d + 1], keys [d][kKeys + 4] (transposed), values
// [kKeys][d], scores [kQueries][kKeys + 1].
constexpr int64_t SharedFloats(int64_t d) {
  return kQueries * (d + 1) + d * (kKeys + 4) + kKeys * d + kQueries * (kKeys + 1) + 8;
}

template <typename T, int kMaxDim>
__global__ void __launch_bounds__(kThreads) TileKernel(AttentionInput in, Sequences sequences) {
  extern __shared__ float4 shared4[];
  if (sequences.n > 0) {
    const int64_t begin = sequences.begins[blockIdx.z];
    in.n_queries = sequences.begins[blockIdx.z + 1] - static_cast<int>(begin);
    in.n_keys = in.n_queries;
    in.queries += begin * in.n_heads * in.head_dim;
    in.keys = static_cast<const T*>(in.keys) + begin * in.key_token_stride;
    in.values = static_cast<const T*>(in.values) + begin * in.value_token_stride;
    in.output += begin * in.n_heads * in.head_dim;
    if (in.lse != nullptr) in.lse += begin * in.n_heads;
    if (static_cast<int>(blockIdx.x) * kQueries >= in.n_queries) return;
  }
  const int d = in.head_dim;
  float* const key_tile = reinterpret_cast<float*>(shared4);  // rows of 36 floats: aligned to 16
  float* const value_tile = key_tile + d * (kKeys + 4);
  float* const query_tile = value_tile + kKeys * d;
  float* const score_tile = query_tile + kQueries * (d + 1);

  const int head = blockIdx.y;
  const int kv_head = head / (in.n_heads / in.n_kv_heads);
  const int first_query = blockIdx.x * kQueries;
  const int n_queries = min(kQueries, in.n_queries - first_query);
  const T* const keys = static_cast<const T*>(in.keys) + kv_head * in.key_head_stride;
  const T* const values = static_cast<const T*>(in.values) + kv_head * in.value_head_stride;
  const int column = threadIdx.x % kThreadsAcross;
  const int row = threadIdx.x / kThreadsAcross;

  for (int i = threadIdx.x; i < kQueries * d; i += kThreads) {
    const int q = i / d;
    query_tile[q * (d + 1) + i % d] =
        q < n_queries
            ? in.queries[(static_cast<int64_t>(first_query + q) * in.n_heads + head) * d + i % d] *
                  in.scale
            : 0.0f;
  }
  constexpr int kDimsPerThread = kMaxDim / kThreadsAcross;
  float output[kRowsPerThread][kDimsPerThread] = {};
  float maximum[kRowsPerThread] = {-INFINITY, -INFINITY};
  float sum[kRowsPerThread] = {};
  int64_t n_visible[kRowsPerThread];
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int query = first_query + row + r * kRowStep;
    n_visible[r] = in.causal ? in.n_keys - in.n_queries + query + 1 : in.n_keys;
  }
  const int64_t end =
      in.causal ? min(in.n_keys, in.n_keys - in.n_queries + first_query + n_queries) : in.n_keys;

  for (int64_t first = 0; first < end; first += kKeys) {
    const int n = static_cast<int>(min(static_cast<int64_t>(kKeys), end - first));
    __syncthreads();
    for (int i = threadIdx.x; i < kKeys * d; i += kThreads) {
      const int key = i / d, dim = i % d;
      const bool is_there = key < n;
      key_tile[dim * (kKeys + 4) + key] =
          is_there ? ToFloat(keys[(first + key) * in.key_token_stride + dim]) : 0.0f;
      value_tile[i] =
          is_there ? ToFloat(values[(first + key) * in.value_token_stride + dim]) : 0.0f;
    }
    __syncthreads();
    float score[kRowsPerThread][kKeysPerThread] = {};
#pragma unroll 4
    for (int dim = 0; dim < d; ++dim) {
      const float4 k =
          *reinterpret_cast<const float4*>(key_tile + dim * (kKeys + 4) + column * kKeysPerThread);
#pragma unroll
      for (int r = 0; r < kRowsPerThread; ++r) {
        const float q = query_tile[(row + r * kRowStep) * (d + 1) + dim];
        score[r][0] += q * k.x;
        score[r][1] += q * k.y;
        score[r][2] += q * k.z;
        score[r][3] += q * k.w;
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsPerThread; ++r) {
      float high = maximum[r];
#pragma unroll
      for (int j = 0; j < kKeysPerThread; ++j) {
        const int key = column * kKeysPerThread + j;
        if (key >= n || first + key >= n_visible[r]) score[r][j] = -INFINITY;
        high = fmaxf(high, score[r][j]);
      }
      high = GroupMax<kThreadsAcross>(high);
      const float factor = high == -INFINITY ? 1.0f : expf(maximum[r] - high);
      float own = 0.0f;
#pragma unroll
      for (int j = 0; j < kKeysPerThread; ++j) {
        const float weight = high == -INFINITY ? 0.0f : expf(score[r][j] - high);
        own += weight;
        score_tile[(row + r * kRowStep) * (kKeys + 1) + column * kKeysPerThread + j] = weight;
      }
      sum[r] = sum[r] * factor + GroupSum<kThreadsAcross>(own);
      maximum[r] = high;
#pragma unroll
      for (int i = 0; i < kDimsPerThread; ++i) output[r][i] *= factor;
    }
    __syncthreads();
    for (int key = 0; key < n; ++key) {
      const float w0 = score_tile[row * (kKeys + 1) + key];
      const float w1 = score_tile[(row + kRowStep) * (kKeys + 1) + key];
#pragma unroll
      for (int i = 0; i < kDimsPerThread; ++i) {
        const int dim = column + i * kThreadsAcross;
        const float value = dim < d ? value_tile[key * d + dim] : 0.0f;
        output[0][i] += w0 * value;
        output[1][i] += w1 * value;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    const int q = row + r * kRowStep;
    if (q >= n_queries) continue;
    const int64_t out_row = static_cast<int64_t>(first_query + q) * in.n_heads + head;
    const float factor = sum[r] > 0.0f ? 1.0f / sum[r] : 0.0f;
#pragma unroll
    for (int i = 0; i < kDimsPerThread; ++i) {
      const int dim = column + i * kThreadsAcross;
      if (dim < d) in.output[out_row * d + dim] = output[r][i] * factor;
    }
    if (column == 0 && in.lse != nullptr) {
      in.lse[out_row] = sum[r] > 0.0f ? maximum[r] + logf(sum[r]) : -INFINITY;
    }
  }
}

template <typename T, int kMaxDim>
absl::Status Launch(const AttentionInput& in, std::span<const int64_t> begins,
                    cudaStream_t stream) {
  const auto shared_bytes = static_cast<int>(SharedFloats(in.head_dim) * sizeof(float));
  RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(TileKernel<T, kMaxDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           shared_bytes),
      StrCat("Attention with heads of ", in.head_dim));
  ForSequences(begins, [&](const Sequences& sequences) {
    const int n_tiles = (LongestSequence(in, sequences) + kQueries - 1) / kQueries;
    const dim3 grid(static_cast<unsigned>(n_tiles), static_cast<unsigned>(in.n_heads),
                    static_cast<unsigned>(std::max(1, sequences.n)));
    TileKernel<T, kMaxDim><<<grid, kThreads, shared_bytes, stream>>>(in, sequences);
  });
  return LaunchStatus("Attention");
}

template <typename T>
absl::Status LaunchForDims(const AttentionInput& in, std::span<const int64_t> begins,
                           cudaStream_t stream) {
  if (in.head_dim <= 64) return Launch<T, 64>(in, begins, stream);
  if (in.head_dim <= 128) return Launch<T, 128>(in, begins, stream);
  if (in.head_dim <= 256) return Launch<T, 256>(in, begins, stream);
  return absl::UnimplementedError(
      StrCat("Attention: heads of ", in.head_dim, " dimensions, want at most 256 on a GPU"));
}

}  // namespace

absl::Status AttendInTiles(CudaDevice& device, const AttentionInput& in,
                           std::span<const int64_t> begins, bool in_bf16) {
  return in_bf16 ? LaunchForDims<__nv_bfloat16>(in, begins, device.stream())
                 : LaunchForDims<float>(in, begins, device.stream());
}

}  // namespace fovea::compute::cuda
