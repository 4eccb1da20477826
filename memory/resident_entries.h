// Keys and values of a whole generation in a device's memory, for searches that are made there. The
// last one that was loaded is kept for the next question (ResidentCache).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "compute/memory_attention.h"
#include "memory/generation.h"

namespace fovea::memory {

// Immutable, thread-safe. Position p of it is a token of generation.windows, counted through them
// in their order.
class ResidentEntries {
 public:
  // ResourceExhausted where the device has no room: nothing is kept then.
  static absl::StatusOr<std::shared_ptr<const ResidentEntries>> Load(compute::Device& device,
                                                                     const Generation& generation,
                                                                     const Progress& progress);

  int64_t n_positions() const { return window_begin_.back(); }
  // Of window w of generation.windows; w = number of windows: n_positions().
  int64_t BeginOf(size_t window) const { return window_begin_[window]; }
  Slot SlotAt(int64_t position) const;
  // What may be selected is the caller's.
  compute::MemoryPart Part(int memory_layer) const;

 private:
  ResidentEntries() = default;

  std::vector<int64_t> window_begin_;  // [n_windows + 1]
  std::vector<Slot> slot_begin_;       // [n_windows]
  int64_t n_kv_heads_ = 0;
  int64_t head_dim_ = 0;
  compute::DType dtype_ = compute::DType::kBF16;
  std::vector<compute::Buffer> keys_;  // [n_mem_layers]: [n_kv_heads, n_positions, head_dim]
  std::vector<compute::Buffer> values_;
};

// Of an opened version of a memory: its entries in the memory of one device. Thread-safe.
class ResidentCache {
 public:
  // Those of `generation`, loaded unless the last ones asked for were its. Errors of Load.
  absl::StatusOr<std::shared_ptr<const ResidentEntries>> Get(compute::Device& device,
                                                             const Generation& generation,
                                                             const Progress& progress);

 private:
  std::mutex mutex_;
  std::shared_ptr<const ResidentEntries> entries_;
  const void* place_ = nullptr;  // the memory that they lie in (Device::memory_id)
  uint64_t epoch_ = 0;
};

}  // namespace fovea::memory
