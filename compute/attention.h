// Attention over a set of keys as a *partial*: its output and the log-sum-exp of its scores.
// Partials over disjoint sets of keys merge exactly into the softmax over their union, in any
// order (docs/conventions.md; the running softmax is that of FlashAttention, Dao et al. 2022).
#pragma once

#include "compute/device.h"

namespace fovea::compute {

struct AttentionArgs {
  const float* queries = nullptr;  // [n_queries, n_heads, head_dim]
  const float* keys = nullptr;     // [n_keys, n_kv_heads, head_dim]
  const float* values = nullptr;   // [n_keys, n_kv_heads, head_dim]
  int64_t n_queries = 0;
  int64_t n_keys = 0;
  int64_t n_heads = 0;  // a multiple of n_kv_heads: query head h uses kv head h·n_kv_heads/n_heads
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;  // scores = scale · <query, key>
  // Causal: query i sees keys 0 … n_keys − n_queries + i (the queries are the last tokens).
  // Otherwise every query sees every key.
  bool causal = true;
  float* output = nullptr;  // = [n_queries, n_heads, head_dim]
  float* lse = nullptr;     // = [n_queries, n_heads], natural log; may be null
};
// Queries that see no key (n_keys = 0) get output 0 and lse −inf.
absl::Status Attention(Device& device, const AttentionArgs& args);

// Merges a second partial into the first:
//   lse' = log(e^lse + e^other_lse), output' = output·e^(lse−lse') + other·e^(other_lse−lse').
// Both lse −inf: output 0, lse −inf. [n_rows = n_queries·n_heads]
struct MergePartialsArgs {
  float* output = nullptr;              // [n_rows, head_dim], in and out
  float* lse = nullptr;                 // [n_rows], in and out
  const float* other_output = nullptr;  // [n_rows, head_dim]
  const float* other_lse = nullptr;     // [n_rows]
  int64_t n_rows = 0;
  int64_t head_dim = 0;
};
absl::Status MergePartials(Device& device, const MergePartialsArgs& args);

}  // namespace fovea::compute
