// Keys or values of a stored window, for those who look at them from outside: read without a copy
// where the store can map its files.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "memory/block_cache.h"
#include "memory/generation.h"
#include "storage/document_store.h"

namespace fovea::memory {

struct StoredEntries {
  int64_t n_kv_heads = 0;
  int64_t n_tokens = 0;
  int64_t head_dim = 0;
  HalfBlock block;         // [n_kv_heads, n_tokens, head_dim], at any address; outlives the memory
  bool is_mapped = false;  // it is where the store's file has it
};

// `part`: kKeys (before RoPE, times the gain) or kValues. `memory_layer` counts memory layers, from
// 0. Errors are those of DocumentStore::MapBlock.
absl::StatusOr<StoredEntries> ReadEntries(const Generation& generation, Slot slot_begin,
                                          int memory_layer, storage::DocumentStore::BlockPart part);

// The windows of a document, in the order of its text.
absl::StatusOr<std::vector<storage::WindowLink>> WindowsOf(const Generation& generation,
                                                           const storage::DocumentRecord& document);

}  // namespace fovea::memory
