// Keys and values of stored blocks in main memory, least recently used out first. A cache policy
// and nothing else: whatever is not here is read from the store.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "base/entries.h"
#include "base/file.h"
#include "base/slot_pool.h"
#include "base/status.h"
#include "base/system_memory.h"
#include "storage/document_store.h"

namespace fovea::memory {

// Keys or values of a block, shared with the cache and with its other users:
// [n_kv_heads, n_tokens, head_dim].
class HalfBlock {
 public:
  HalfBlock() = default;  // none
  HalfBlock(std::shared_ptr<const std::byte> memory, EntryType type, size_t size_bytes)
      : memory_(std::move(memory)), type_(type), size_bytes_(size_bytes) {}

  bool empty() const { return memory_ == nullptr; }
  EntryPointer data() const { return {type_, memory_.get()}; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  std::shared_ptr<const std::byte> memory_;
  EntryType type_ = EntryType::kBFloat16;
  size_t size_bytes_ = 0;
};

// What a cache may take of the machine's memory: half of all, and of what nobody uses all but an
// eighth of the whole machine, so that others find some. `used_bytes`: what the cache has already.
size_t AutomaticCacheBytes(const SystemMemory& memory, size_t used_bytes);

// Thread-safe; blocks handed out stay valid as long as they are held.
class BlockCache {
 public:
  // capacity_bytes counts entries; the slots of windows that are not full take up to a third more.
  // 0: AutomaticCacheBytes, looked up again while the cache fills.
  BlockCache(storage::DocumentStore* store, size_t capacity_bytes);

  // `hold`: see DocumentStore::VisitBlock.
  absl::StatusOr<HalfBlock> Keys(storage::Slot slot_begin, int memory_layer,
                                 const storage::WindowHold* hold = nullptr);
  absl::StatusOr<HalfBlock> Values(storage::Slot slot_begin, int memory_layer,
                                   const storage::WindowHold* hold = nullptr);
  // Values where they lie in the store's mapped file, at any address: for those who look at a few
  // tokens of many windows, to whom a copy costs more than all else. They count as the system's
  // file cache, not as this one's. Where the store maps nothing, as Values.
  absl::StatusOr<HalfBlock> MappedValues(storage::Slot slot_begin, int memory_layer,
                                         const storage::WindowHold* hold = nullptr);
  // Lets go of mapped files that the store has removed, so that their space becomes free.
  void ForgetRemovedFiles();
  // Lets go of blocks of windows that begin elsewhere. Slots are never used again: nobody asks for
  // those but questions that began before the windows went, and they find them in the store.
  // slot_begins: ascending.
  void KeepOnly(std::span<const storage::Slot> slot_begins);
  void Clear();
  size_t size_bytes() const;
  size_t capacity_bytes() const { return capacity_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Entry {
    HalfBlock block;
    std::list<uint64_t>::iterator position;
  };
  struct MappedEntry {
    HalfBlock block;
    std::shared_ptr<const MappedFile> file;
  };
  absl::StatusOr<HalfBlock> Get(storage::Slot slot_begin, int memory_layer, bool keys,
                                const storage::WindowHold* hold);
  // What entries_ has under this key, now the most recent. Requires mutex_.
  const HalfBlock& Touch(uint64_t key);
  std::shared_ptr<std::byte> Allocate(size_t size_bytes);

  storage::DocumentStore* store_;
  const bool is_automatic_;
  std::atomic<size_t> capacity_bytes_;
  std::once_flag pool_once_;
  std::shared_ptr<SlotPool> pool_;  // for whole windows; null where their size is not known
  mutable std::mutex mutex_;
  size_t used_bytes_ = 0;
  size_t unjudged_bytes_ = 0;    // added since the capacity was looked up
  std::list<uint64_t> recency_;  // most recent in front
  absl::flat_hash_map<uint64_t, Entry> entries_;
  absl::flat_hash_map<uint64_t, MappedEntry> mapped_;
};

}  // namespace fovea::memory
