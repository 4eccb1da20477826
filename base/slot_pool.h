// Pieces of memory of one size, in huge pages, given again when they come back: for caches whose
// entries come and go but are about as large. A fresh 4 KiB page costs a fault and a clearing each;
// where hundreds of megabytes are read once, that takes longer than reading them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/huge_pages.h"

namespace fovea {

// Thread-safe. Memory goes back to the system with the pool, which lives as long as its slots.
class SlotPool : public std::enable_shared_from_this<SlotPool> {
 public:
  // slot_bytes > 0.
  static std::shared_ptr<SlotPool> Create(size_t slot_bytes);
  size_t slot_bytes() const { return slot_bytes_; }

  // slot_bytes() of whatever was there before, at a 64-byte boundary; null when there is no memory.
  std::shared_ptr<std::byte> Allocate();

 private:
  explicit SlotPool(size_t slot_bytes) : slot_bytes_(slot_bytes), pages_(SIZE_MAX) {}
  void Release(std::byte* slot);

  const size_t slot_bytes_;
  HugePages pages_;
  std::mutex mutex_;
  std::vector<std::byte*> free_;
};

}  // namespace fovea
