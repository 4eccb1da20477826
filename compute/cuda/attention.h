// The ways in which attention is computed on a GPU. Many queries go tile by tile, on tensor cores
// or, exactly, in float32; of a few, the keys are split over the whole GPU and the parts' partials
// are merged.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "compute/attention.h"
#include "compute/cuda/cuda_device.h"
#include "compute/cuda/sequences.cuh"

namespace fovea::compute::cuda {

// AttentionArgs as kernels take them.
struct AttentionInput {
  const float* queries;  // [n_queries, n_heads, head_dim]
  const void* keys;      // elements of one type, float or bfloat16
  const void* values;
  int64_t key_token_stride, key_head_stride, value_token_stride, value_head_stride;
  int64_t n_keys;
  int n_queries, n_heads, n_kv_heads, head_dim;
  float scale;
  bool causal;
  float* output;  // [n_queries, n_heads, head_dim]
  float* lse;     // [n_queries, n_heads] or null
};

AttentionInput InputOf(const AttentionArgs& args);

// Queries of the longest sequence.
inline int LongestSequence(const AttentionInput& in, const Sequences& sequences) {
  int longest = sequences.n > 0 ? 0 : in.n_queries;
  for (int i = 0; i < sequences.n; ++i) {
    longest = std::max(longest, sequences.begins[i + 1] - sequences.begins[i]);
  }
  return longest;
}

// `begins`: AttentionArgs::sequence_begins.
absl::Status AttendInTiles(CudaDevice& device, const AttentionInput& in,
                           std::span<const int64_t> begins, bool in_bf16);
inline constexpr int64_t kMaxTensorCoreHeadDim = 128;
absl::Status AttendOnTensorCores(CudaDevice& device, const AttentionInput& in,
                                 std::span<const int64_t> begins, bool in_bf16);

// Rows of a KV head (queries · heads of its group) that split attention takes.
inline constexpr int64_t kMaxSplitRows = 64;
inline constexpr int64_t kMaxSplitHeadDim = 256;
absl::Status AttendInSplits(CudaDevice& device, const AttentionInput& in, bool in_bf16);

}  // namespace fovea::compute::cuda
