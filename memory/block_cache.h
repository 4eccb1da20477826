// Keys and values of stored blocks in main memory, least recently used out first. A cache policy
// and nothing else: whatever is not here is read from the store.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "base/entries.h"
#include "base/status.h"
#include "storage/document_store.h"

namespace fovea::memory {

// One half of a block: [n_kv_heads, n_tokens, head_dim].
using HalfBlock = std::shared_ptr<const EntryVector>;

// Thread-safe; blocks handed out stay valid as long as they are held.
class BlockCache {
 public:
  BlockCache(storage::DocumentStore* store, size_t capacity_bytes)
      : store_(store), capacity_bytes_(capacity_bytes) {}

  absl::StatusOr<HalfBlock> Keys(storage::Slot slot_begin, int memory_layer);
  absl::StatusOr<HalfBlock> Values(storage::Slot slot_begin, int memory_layer);
  void Clear();
  size_t size_bytes() const;
  size_t capacity_bytes() const { return capacity_bytes_; }

 private:
  struct Entry {
    HalfBlock block;
    std::list<uint64_t>::iterator position;
  };
  absl::StatusOr<HalfBlock> Get(storage::Slot slot_begin, int memory_layer, bool keys);

  storage::DocumentStore* store_;
  size_t capacity_bytes_;
  mutable std::mutex mutex_;
  size_t used_bytes_ = 0;
  std::list<uint64_t> recency_;  // most recent in front
  absl::flat_hash_map<uint64_t, Entry> entries_;
};

}  // namespace fovea::memory
