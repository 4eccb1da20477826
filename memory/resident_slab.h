// Keys, codes, indexes and values of the windows of a range of slots, loaded for searches on a
// device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/coded_memory_attention.h"
#include "compute/device.h"
#include "index/device_index.h"
#include "memory/generation.h"
#include "memory/residency_plan.h"

namespace fovea::memory {

// Immutable, thread-safe. Token t of the slab belongs to its windows, counted through them by slot.
// Windows that are deleted later stay in it; what may be selected is up to the caller.
class ResidentSlab {
 public:
  // The windows that the generation has in the slab's range. ResourceExhausted where the device has
  // no room.
  static absl::StatusOr<std::shared_ptr<const ResidentSlab>> Load(compute::Device& device,
                                                                  const Generation& generation,
                                                                  const SlabShape& shape,
                                                                  const ResidencyPlan& plan,
                                                                  const Progress& progress);

  // Whether it has all windows of the generation in this range, and what the plan searches by, and
  // its values lie where the plan has them.
  bool Serves(const Generation& generation, const SlabShape& shape,
              const ResidencyPlan& plan) const;

  int64_t n_tokens() const { return window_begin_.back(); }
  // The first token of the window that begins at this slot; −1: it is not there.
  int64_t BeginOf(Slot slot_begin) const;
  Slot SlotAt(int64_t token) const;
  // Of all tokens; without values where they stay in the store.
  compute::CodedMemoryPart Part(int memory_layer) const;
  // A layer's index, and how it is searched.
  struct Index {
    const index::DeviceIndex* index = nullptr;  // null: none
    int n_probe = 0;
    int n_candidates = 0;
    const int32_t* tokens = nullptr;  // of its keys (compute::FoundKeys)
  };
  Index IndexOf(int memory_layer) const;
  HeldBytes bytes() const { return bytes_; }

 private:
  struct Layer {
    compute::Buffer keys, values;  // [n_kv_heads, n_tokens, head_dim]; values of kStore: none
    compute::Buffer codes, factors, mean, rotation;
    int bits = 0;
    bool has_pinned_keys = false;
    std::unique_ptr<index::DeviceIndex> index;
    std::shared_ptr<const compute::Buffer> tokens;  // null: keys are numbered as tokens are
  };
  ResidentSlab() = default;
  absl::Status Read(compute::Device& device, const Generation& generation, size_t first_window,
                    const Progress& progress);
  absl::Status Encode(compute::Device& device, Layer* layer) const;
  absl::Status CopyIndexes(compute::Device& device, const Generation& generation);
  // The tokens of an index's keys: −1 for those that are not here.
  std::vector<int32_t> TokensOf(const index::KeyIds& ids) const;
  compute::ConstView View(const compute::Buffer& buffer) const {
    return {dtype_, buffer.data<void>(), {n_kv_heads_, n_tokens(), head_dim_}};
  }

  SlabShape shape_;
  std::shared_ptr<const Segment> segment_;  // whose indexes were copied; null: none
  bool has_pinned_keys_ = false;
  ValuePlace values_ = ValuePlace::kDevice;
  std::vector<int64_t> window_begin_;  // [n_windows + 1]
  std::vector<Slot> slot_begin_;       // [n_windows]
  int64_t n_kv_heads_ = 0;
  int64_t head_dim_ = 0;
  compute::DType dtype_ = compute::DType::kBF16;
  HeldBytes bytes_;
  std::vector<Layer> layers_;  // [n_mem_layers]
};

}  // namespace fovea::memory
