// Attention over a set of keys as a *partial*: its output and the log-sum-exp of its scores.
// Partials over disjoint sets of keys merge exactly into the softmax over their union, in any
// order (docs/conventions.md; the running softmax is that of FlashAttention, Dao et al. 2022).
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct AttentionArgs {
  ConstView queries;  // [n_queries, n_heads, head_dim], float32, contiguous
  // [n_keys, n_kv_heads, head_dim], both float32 or both bfloat16, which is widened exactly; tokens
  // and heads may lie in any order (strides), the dimensions of a head lie together. n_heads is a
  // multiple of n_kv_heads: query head h uses kv head h·n_kv_heads/n_heads.
  ConstView keys;
  ConstView values;
  float scale = 1.0f;  // scores = scale · <query, key>
  // Causal: query i sees keys 0 … n_keys − n_queries + i (the queries are the last tokens).
  // Otherwise every query sees every key.
  bool causal = true;
  // Several sequences whose tokens lie one after another, [n_sequences + 1]: sequence s has the
  // queries and the keys begins[s] … begins[s + 1] − 1 and sees nothing else, as if each were
  // computed by itself. From 0 up to n_queries = n_keys. Empty: one sequence.
  std::span<const int64_t> sequence_begins = {};
  View output;  // = [n_queries, n_heads, head_dim], float32, contiguous
  // = [n_queries, n_heads], natural logarithm, float32, contiguous; may be none.
  View lse = {};
};
// Queries that see no key (n_keys = 0) get output 0 and lse −inf. InvalidArgument for views of
// other types, shapes or layouts.
//
// Exact up to float32's rounding, but on devices of a precision of bfloat16 or 8 bits, where the
// factors of both products, of many queries, may be rounded to bfloat16 (2⁻⁹): beside normal
// numbers the output then errs by less than 1% (root of the mean squares) and the lse by 0.02.
absl::Status Attention(Device& device, const AttentionArgs& args);
// Attention of each, to the same bits; on a CPU in one loop over the device's threads, which the
// steps of several answers feel.
absl::Status AttentionTogether(Device& device, std::span<const AttentionArgs> attentions);

// Merges a second partial into the first:
//   lse' = log(e^lse + e^other_lse), output' = output·e^(lse−lse') + other·e^(other_lse−lse').
// Both lse −inf: output 0, lse −inf. All float32, contiguous.
struct MergePartialsArgs {
  View output;             // [n_queries, n_heads, head_dim], in and out
  View lse;                // [n_queries, n_heads], in and out
  ConstView other_output;  // [n_queries, n_heads, head_dim]
  ConstView other_lse;     // [n_queries, n_heads]
};
// InvalidArgument for views of other types, shapes or layouts.
absl::Status MergePartials(Device& device, const MergePartialsArgs& args);

}  // namespace fovea::compute
