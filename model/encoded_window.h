// What goes from a model to a memory: keys and values of tokens, in main memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/entries.h"
#include "base/float16.h"

namespace fovea::model {

// What a memory takes of tokens: keys before RoPE, times the layer's key gain, and values.
struct MemoryEntries {
  int64_t n_tokens = 0;
  std::vector<std::vector<float>> keys;    // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  std::vector<std::vector<float>> values;  // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
};

// One window to encode: `context` tokens are seen but not stored (the overlap with the previous
// window of the same document).
struct WindowTokens {
  std::span<const int32_t> context;  // may be empty
  std::span<const int32_t> tokens;   // at least one
};

// Keys (before RoPE, times the layer's key gain) and values of one window, per memory layer, in the
// type of the model's memory entries (MemoryConfig::entry_type).
struct EncodedWindow {
  int64_t n_tokens = 0;
  std::vector<EntryVector> keys;    // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  std::vector<EntryVector> values;  // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  // Queries (with their local rotation) of a few evenly spaced tokens, a sample of real queries for
  // calibrating indexes.
  int64_t n_sampled = 0;
  std::vector<std::vector<BFloat16>> queries;  // [n_mem_layers][n_sampled, n_heads, head_dim]
};

// The same in `type`, without queries.
EncodedWindow ToEncodedWindow(MemoryEntries entries, EntryType type);

}  // namespace fovea::model
