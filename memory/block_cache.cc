#include "memory/block_cache.h"

namespace fovea::memory {
namespace {

// Slots fit 48 bits and memory layers 15 (checked where they are made), so one word names a half
// block.
uint64_t CacheKey(storage::Slot slot_begin, int memory_layer, bool keys) {
  return slot_begin << 16 | static_cast<uint64_t>(memory_layer) << 1 | (keys ? 1 : 0);
}

}  // namespace

absl::StatusOr<HalfBlock> BlockCache::Get(storage::Slot slot_begin, int memory_layer, bool keys) {
  const uint64_t key = CacheKey(slot_begin, memory_layer, keys);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (const auto it = entries_.find(key); it != entries_.end()) {
      recency_.splice(recency_.begin(), recency_, it->second.position);
      return it->second.block;
    }
  }
  // Read without the lock: loads of different blocks overlap. Two threads may load the same block;
  // the second copy is dropped.
  using Part = storage::DocumentStore::BlockPart;
  ASSIGN_OR_RETURN(storage::Block block,
                   store_->GetBlock(slot_begin, memory_layer, keys ? Part::kKeys : Part::kValues));
  auto half = std::make_shared<const EntryVector>(std::move(keys ? block.keys : block.values));
  std::lock_guard<std::mutex> lock(mutex_);
  if (const auto it = entries_.find(key); it != entries_.end()) return it->second.block;
  recency_.push_front(key);
  entries_[key] = {half, recency_.begin()};
  used_bytes_ += half->size_bytes();
  while (used_bytes_ > capacity_bytes_ && recency_.size() > 1) {
    const auto oldest = entries_.find(recency_.back());
    used_bytes_ -= oldest->second.block->size_bytes();
    entries_.erase(oldest);
    recency_.pop_back();
  }
  return half;
}

absl::StatusOr<HalfBlock> BlockCache::Keys(storage::Slot slot_begin, int memory_layer) {
  return Get(slot_begin, memory_layer, true);
}

absl::StatusOr<HalfBlock> BlockCache::Values(storage::Slot slot_begin, int memory_layer) {
  return Get(slot_begin, memory_layer, false);
}

void BlockCache::Clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  entries_.clear();
  recency_.clear();
  used_bytes_ = 0;
}

size_t BlockCache::size_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_bytes_;
}

}  // namespace fovea::memory
