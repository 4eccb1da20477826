// A generation's keys, codes, indexes and values where a device reads them, for searches that are
// made there. What is loaded is kept for the next question, slab by slab, so that a new generation
// loads what is new in it (ResidentCache).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/coded_memory_attention.h"
#include "compute/device.h"
#include "memory/generation.h"
#include "memory/residency_plan.h"
#include "memory/resident_slab.h"

namespace fovea::memory {

// Immutable, thread-safe. Position p of it is a token of its slabs, counted through them.
class ResidentEntries {
 public:
  ResidentEntries(const ResidencyPlan& plan, const Generation& generation,
                  std::vector<std::shared_ptr<const ResidentSlab>> slabs);

  bool uses_codes() const { return uses_codes_; }
  // Whether indexes are searched in the place of codes.
  bool has_indexes() const { return has_indexes_; }
  // Whether parts have values; those that have none are read from the store.
  bool has_values() const { return values_ != ValuePlace::kStore; }
  // Whether a search is ops of the device alone: the host takes part in those of indexes, and where
  // it reads the store.
  bool is_recordable() const { return !has_indexes_ && has_values(); }
  // Whether all keys and values lie in the device's own memory.
  bool is_all_on_device() const { return !has_pinned_keys_ && values_ == ValuePlace::kDevice; }
  int64_t n_positions() const { return slab_begin_.back(); }
  Slot SlotAt(int64_t position) const;
  // Candidates that approximate search of a layer scores again, but for those of indexes.
  int n_candidates(int memory_layer) const {
    return n_candidates_[static_cast<size_t>(memory_layer)];
  }

  // Which positions may be selected: bits of all slabs, each of which begins with a word of its
  // own.
  int64_t n_allowed_words() const { return word_begin_.back(); }
  // The bit of the first token of window w of generation.windows.
  int64_t AllowedBitOf(size_t window) const { return bit_begin_[window]; }
  struct Place {
    size_t slab = 0;
    int64_t token = 0;
  };
  Place PlaceOfBit(int64_t bit) const;

  // The bits of what may be selected, [n_allowed_words()], in the device's memory: one copy for all
  // who ask for the same ones while it is held, so that equal filters have one address.
  absl::StatusOr<std::shared_ptr<const compute::Buffer>> AllowedOnDevice(
      compute::Device& device, std::vector<uint64_t> bits) const;

  // Of each slab, how many of its tokens may be. `bits`: [n_allowed_words()].
  std::vector<int64_t> CountAllowed(const std::vector<uint64_t>& bits) const;

  // Of each slab.
  ResidentSlab::Index IndexOf(size_t slab, int memory_layer) const {
    return uses_codes_ ? slabs_[slab]->IndexOf(memory_layer) : ResidentSlab::Index();
  }
  // Of each slab. `allowed`: n_allowed_words() in the device's memory, or null: all may be.
  std::vector<compute::CodedMemoryPart> Parts(int memory_layer, const uint64_t* allowed) const;

 private:
  bool uses_codes_;
  bool has_pinned_keys_;
  ValuePlace values_;
  bool has_indexes_ = false;
  std::vector<std::shared_ptr<const ResidentSlab>> slabs_;
  std::vector<int64_t> slab_begin_;  // positions, [n_slabs + 1]
  std::vector<int64_t> word_begin_;  // [n_slabs + 1]
  std::vector<int64_t> bit_begin_;   // [n_windows]
  std::vector<int> n_candidates_;    // [n_mem_layers]
  struct Filter {
    std::vector<uint64_t> bits;
    std::weak_ptr<const compute::Buffer> on_device;
  };
  mutable std::mutex filters_mutex_;
  mutable std::vector<Filter> filters_;  // those that are held, and some that were
};

// Of an opened version of a memory: its slabs for one device. Thread-safe.
class ResidentCache {
 public:
  // What entries may take of pinned host memory; unset: half of what is available.
  void set_pinned_limit_bytes(std::optional<size_t> limit);
  // Of the device as it is now, where what is loaded here counts as free.
  ResidencyLimits Limits(const compute::Device& device) const;

  // Those of `generation`, of which only what no slab has is loaded; slabs that it has no use for
  // go first. Errors of PlanResidency, and those of reading.
  absl::StatusOr<std::shared_ptr<const ResidentEntries>> Get(compute::Device& device,
                                                             const Generation& generation,
                                                             bool is_approximate,
                                                             const Progress& progress);

 private:
  ResidencyLimits LimitsLocked(const compute::Device& device) const;

  mutable std::mutex mutex_;
  std::optional<size_t> pinned_limit_bytes_;
  std::vector<std::shared_ptr<const ResidentSlab>> slabs_;
  const void* place_ = nullptr;  // the memory that they lie in (Device::memory_id)
  // The last ones asked for.
  std::shared_ptr<const ResidentEntries> entries_;
  uint64_t epoch_ = 0;
  bool is_approximate_ = false;
};

}  // namespace fovea::memory
