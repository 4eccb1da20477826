#include "base/slot_pool.h"

#include "base/status.h"

namespace fovea {

std::shared_ptr<SlotPool> SlotPool::Create(size_t slot_bytes) {
  FOVEA_CHECK(slot_bytes > 0);
  return std::shared_ptr<SlotPool>(new SlotPool(slot_bytes));
}

std::shared_ptr<std::byte> SlotPool::Allocate() {
  std::byte* slot = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      slot = free_.back();  // the last one that came back: most of it may be in a cache
      free_.pop_back();
    }
  }
  if (slot == nullptr) slot = pages_.Allocate(slot_bytes_);
  if (slot == nullptr) return nullptr;
  return {slot, [pool = shared_from_this()](std::byte* back) { pool->Release(back); }};
}

void SlotPool::Release(std::byte* slot) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(slot);
}

}  // namespace fovea
