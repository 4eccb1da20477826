// From what a model's encoder returns to what the store keeps: tokens outermost becomes heads
// outermost, so that the keys of one head lie together for scans, and numbers get the memory's
// type.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "model/transformer.h"
#include "storage/records.h"

namespace fovea::memory {

// One memory layer of an encoded window:
// [n_tokens, n_kv_heads, head_dim] → [n_kv_heads, n_tokens, head_dim], keys and values in `type`.
inline storage::Block ToBlock(const model::EncodedWindow& window, int memory_layer,
                              int64_t n_kv_heads, int64_t head_dim, EntryType type) {
  const auto layer = static_cast<size_t>(memory_layer);
  const auto n_values = static_cast<size_t>(window.n_tokens * n_kv_heads * head_dim);
  FOVEA_CHECK(layer < window.keys.size() && layer < window.values.size());
  FOVEA_CHECK(window.keys[layer].size() == n_values && window.values[layer].size() == n_values);
  storage::Block block;
  block.n_tokens = window.n_tokens;
  block.n_kv_heads = n_kv_heads;
  block.head_dim = head_dim;
  const auto transpose = [&](const EntryVector& in) {
    EntryVector out(type, n_values);
    for (int64_t token = 0; token < window.n_tokens; ++token) {
      for (int64_t head = 0; head < n_kv_heads; ++head) {
        out.Set(static_cast<size_t>((head * window.n_tokens + token) * head_dim),
                in.data() + (token * n_kv_heads + head) * head_dim, static_cast<size_t>(head_dim));
      }
    }
    return out;
  };
  block.keys = transpose(window.keys[layer]);
  block.values = transpose(window.values[layer]);
  return block;
}

// The sample of queries that came with an encoded window: the same layout on both sides.
inline storage::QuerySample ToQuerySample(const model::EncodedWindow& window) {
  return {.n_queries = window.n_sampled, .queries = window.queries};
}

}  // namespace fovea::memory
