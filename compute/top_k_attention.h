// Attention to the keys that a search kept: one softmax over the top k of each query head, as a
// partial (compute/attention.h), and the weights that each kept key has.
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/entry_table.h"
#include "compute/key_scan.h"
#include "compute/view.h"

namespace fovea::compute {

// Natural logarithm of the sum of e^(scale · score); −inf for none. `sorted`: best first.
float LogSumExp(std::span<const ScoredId> sorted, float scale);

// log(e^a + e^b), natural; −inf is the logarithm of nothing.
float LogAddExp(float a, float b);

struct TopKAttentionArgs {
  // One list for each KV head, as KeyScan and Rescore fill them: query head h of query t has list
  // t · group + h mod group of kept[h / group]. Sorted in place.
  std::span<TopK> kept;
  EntryTable values;  // at any address: they may lie in a mapped file
  // [n_queries, n_heads, top_k]: where the values of the kept keys lie, in the order of
  // TopK::Sorted; what lies beyond the kept keys of a row is not read.
  std::span<const EntryPlace> places;
  float scale = 1.0f;  // of the scores
  View output;         // = [n_queries, n_heads, head_dim], float32, contiguous
  View lse;            // = [n_queries, n_heads], natural logarithm, float32, contiguous
};
// Query heads that kept nothing get output 0 and lse −inf. InvalidArgument for shapes that do not
// fit each other.
absl::Status TopKAttention(Device& device, const TopKAttentionArgs& args);

struct TopKWeightsArgs {
  std::span<TopK> kept;  // as above
  float scale = 1.0f;
  // [n_queries, n_heads], natural logarithms, float32, contiguous: log-sum-exp of the memory's
  // scores, and of what shares the softmax with them, which may be none.
  ConstView lse;
  ConstView other_lse = {};
  View weights;  // = [n_queries, n_heads, top_k], float32, contiguous
};
// weights[…, j]: the share that the row's kept key j (TopK::Sorted) has of the whole softmax, 0
// beyond those that were kept. InvalidArgument for shapes that do not fit each other.
absl::Status TopKWeights(Device& device, const TopKWeightsArgs& args);

}  // namespace fovea::compute
