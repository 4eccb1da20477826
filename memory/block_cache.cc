#include "memory/block_cache.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

namespace fovea::memory {
namespace {

constexpr size_t kJudgeEveryBytes = size_t{64} << 20;
// Where the system does not say how much memory it has, and what a cache always may take.
constexpr size_t kUnknownCacheBytes = size_t{2} << 30;
constexpr size_t kLeastCacheBytes = size_t{256} << 20;

// Slots fit 48 bits and memory layers 15 (checked where they are made), so one word names a half
// block.
uint64_t CacheKey(storage::Slot slot_begin, int memory_layer, bool keys) {
  return slot_begin << 16 | static_cast<uint64_t>(memory_layer) << 1 | (keys ? 1 : 0);
}

storage::Slot SlotOf(uint64_t cache_key) { return cache_key >> 16; }

}  // namespace

size_t AutomaticCacheBytes(const SystemMemory& memory, size_t used_bytes) {
  if (memory.total_bytes == 0) return kUnknownCacheBytes;
  const uint64_t half = memory.total_bytes / 2;
  const uint64_t reachable = used_bytes + memory.available_bytes;
  const uint64_t left_alone = memory.total_bytes / 8;
  const uint64_t spare = reachable > left_alone ? reachable - left_alone : 0;
  return std::max<size_t>(kLeastCacheBytes, std::min(half, spare));
}

BlockCache::BlockCache(storage::DocumentStore* store, size_t capacity_bytes)
    : store_(store),
      is_automatic_(capacity_bytes == 0),
      capacity_bytes_(is_automatic_ ? AutomaticCacheBytes(GetSystemMemory(), 0) : capacity_bytes) {}

std::shared_ptr<std::byte> BlockCache::Allocate(size_t size_bytes) {
  std::call_once(pool_once_, [this] {
    const absl::StatusOr<std::optional<storage::StoreSettings>> settings = store_->Settings();
    if (!settings.ok() || !settings->has_value()) return;
    const size_t slot_bytes =
        static_cast<size_t>((*settings)->window) * static_cast<size_t>((*settings)->n_kv_heads) *
        static_cast<size_t>((*settings)->head_dim) * EntryBytes((*settings)->entry_type);
    if (slot_bytes > 0) pool_ = SlotPool::Create(slot_bytes);
  });
  // Small documents' windows would waste a slot.
  if (pool_ != nullptr && size_bytes <= pool_->slot_bytes() &&
      size_bytes >= pool_->slot_bytes() / 4 * 3) {
    if (std::shared_ptr<std::byte> slot = pool_->Allocate(); slot != nullptr) return slot;
  }
  const std::shared_ptr<std::byte[]> bytes(new std::byte[size_bytes]);
  return {bytes, bytes.get()};
}

const HalfBlock& BlockCache::Touch(uint64_t key) {
  const Entry& entry = entries_.find(key)->second;
  recency_.splice(recency_.begin(), recency_, entry.position);
  return entry.block;
}

absl::StatusOr<HalfBlock> BlockCache::Get(storage::Slot slot_begin, int memory_layer, bool keys,
                                          const storage::WindowHold* hold) {
  const uint64_t key = CacheKey(slot_begin, memory_layer, keys);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (entries_.contains(key)) return Touch(key);
  }
  // Read without the lock: loads of different blocks overlap. Two threads may load the same block;
  // the second copy is dropped.
  using Part = storage::DocumentStore::BlockPart;
  HalfBlock half;
  RETURN_IF_ERROR(store_->VisitBlock(
      slot_begin, memory_layer, keys ? Part::kKeys : Part::kValues,
      [&](const storage::BlockView& view) {
        std::shared_ptr<std::byte> memory = Allocate(view.bytes.size());
        std::memcpy(memory.get(), view.bytes.data(), view.bytes.size());
        half = HalfBlock(std::move(memory), view.type, view.bytes.size());
        return absl::OkStatus();
      },
      hold));
  std::lock_guard<std::mutex> lock(mutex_);
  if (const auto it = entries_.find(key); it != entries_.end()) return it->second.block;
  recency_.push_front(key);
  entries_[key] = {half, recency_.begin()};
  used_bytes_ += half.size_bytes();
  unjudged_bytes_ += half.size_bytes();
  if (is_automatic_ && unjudged_bytes_ >= kJudgeEveryBytes) {
    unjudged_bytes_ = 0;
    capacity_bytes_ = AutomaticCacheBytes(GetSystemMemory(), used_bytes_);
  }
  while (used_bytes_ > capacity_bytes() && recency_.size() > 1) {
    const auto oldest = entries_.find(recency_.back());
    used_bytes_ -= oldest->second.block.size_bytes();
    entries_.erase(oldest);
    recency_.pop_back();
  }
  return half;
}

absl::StatusOr<HalfBlock> BlockCache::Keys(storage::Slot slot_begin, int memory_layer,
                                           const storage::WindowHold* hold) {
  return Get(slot_begin, memory_layer, true, hold);
}

absl::StatusOr<HalfBlock> BlockCache::Values(storage::Slot slot_begin, int memory_layer,
                                             const storage::WindowHold* hold) {
  return Get(slot_begin, memory_layer, false, hold);
}

absl::StatusOr<HalfBlock> BlockCache::MappedValues(storage::Slot slot_begin, int memory_layer,
                                                   const storage::WindowHold* hold) {
  const uint64_t key = CacheKey(slot_begin, memory_layer, false);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (const auto it = mapped_.find(key); it != mapped_.end()) return it->second.block;
    if (entries_.contains(key)) return Touch(key);
  }
  MappedEntry mapped;
  RETURN_IF_ERROR(store_->MapBlock(
      slot_begin, memory_layer, storage::DocumentStore::BlockPart::kValues,
      [&](const storage::BlockView& view) {
        if (view.file == nullptr) return absl::OkStatus();
        mapped.file = view.file;
        mapped.block = HalfBlock({view.file, reinterpret_cast<const std::byte*>(view.bytes.data())},
                                 view.type, view.bytes.size());
        return absl::OkStatus();
      },
      hold));
  if (mapped.file == nullptr) return Get(slot_begin, memory_layer, false, hold);
  std::lock_guard<std::mutex> lock(mutex_);
  return mapped_.try_emplace(key, std::move(mapped)).first->second.block;
}

void BlockCache::ForgetRemovedFiles() {
  std::lock_guard<std::mutex> lock(mutex_);
  absl::flat_hash_map<const MappedFile*, bool> is_there;
  absl::erase_if(mapped_, [&](const auto& entry) {
    const MappedFile* const file = entry.second.file.get();
    const auto [it, is_new] = is_there.try_emplace(file, true);
    std::error_code error;
    if (is_new) it->second = std::filesystem::exists(file->path(), error) || error;
    return !it->second;
  });
}

void BlockCache::KeepOnly(std::span<const storage::Slot> slot_begins) {
  const auto is_kept = [&](uint64_t key) {
    return std::binary_search(slot_begins.begin(), slot_begins.end(), SlotOf(key));
  };
  std::lock_guard<std::mutex> lock(mutex_);
  absl::erase_if(mapped_, [&](const auto& entry) { return !is_kept(entry.first); });
  absl::erase_if(entries_, [&](const auto& entry) {
    if (is_kept(entry.first)) return false;
    used_bytes_ -= entry.second.block.size_bytes();
    recency_.erase(entry.second.position);
    return true;
  });
}

void BlockCache::Clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  mapped_.clear();
  entries_.clear();
  recency_.clear();
  used_bytes_ = 0;
}

size_t BlockCache::size_bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_bytes_;
}

}  // namespace fovea::memory
