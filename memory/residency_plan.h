// Where the keys, codes, indexes and values of a memory lie when it is searched on a device with
// memory of its own: what fits the device, what stays in pinned host memory, which the device
// reads, and what stays in the store, which the host reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "memory/generation.h"

namespace fovea::memory {

// Windows that are loaded together: those of a sealed segment, or those after the last one.
struct SlabShape {
  Slot slot_begin = 0;
  Slot slot_end = 0;
  int64_t n_tokens = 0;
  // Per memory layer: the bits of the codes that approximate search reads, 0 where it reads the
  // keys, as where a segment has no index; and how many of them are scored again.
  std::vector<int> bits;
  std::vector<int> n_candidates;
  // Per memory layer: what the segment's index takes where the device searches it in the place of
  // keys and codes, 0 where it does not; and its effort.
  std::vector<size_t> index_bytes;
  std::vector<int> n_probe;
  uint64_t segment_id = 0;
};

struct ResidencyLimits {
  size_t device_bytes = 0;
  size_t pinned_bytes = 0;
  bool is_given = false;  // device_bytes, by the user, who is given no more than there is
  // Whose searches of indexes count (index::LayerIndex::DeviceBytes); null: none's.
  const compute::Device* device = nullptr;
};
// What entries hold that may go.
struct HeldBytes {
  size_t on_device = 0;
  size_t pinned = 0;
};
// Of the device as it is now: what is free less a margin for what answers need beside, or what its
// entry_limit_bytes() says, where that is less than what is free. Of the host half of what is
// available. What is held counts as free.
ResidencyLimits LimitsOf(const compute::Device& device, HeldBytes held = {});

enum class ValuePlace {
  kDevice,
  kPinned,  // host memory, which the device reads
  kStore,   // those of kept keys are read for each search
};

struct ResidencyPlan {
  std::vector<SlabShape> slabs;  // by slot, those that have tokens
  bool uses_codes = false;       // bits and indexes of the slabs count; else the keys are searched
  bool has_pinned_keys = false;  // of the layers that have codes or an index
  ValuePlace values = ValuePlace::kDevice;
  size_t code_bytes = 0;
  size_t index_bytes = 0;
  size_t coded_key_bytes = 0;  // of keys that have codes or an index
  size_t key_bytes = 0;        // of the others
  size_t value_bytes = 0;

  size_t DeviceBytes() const {
    return code_bytes + index_bytes + key_bytes + (has_pinned_keys ? 0 : coded_key_bytes) +
           (values == ValuePlace::kDevice ? value_bytes : 0);
  }
  size_t PinnedBytes() const {
    return (has_pinned_keys ? coded_key_bytes : 0) +
           (values == ValuePlace::kPinned ? value_bytes : 0);
  }
};

// More tokens than this are searched by codes where keys would fit, too.
inline constexpr int64_t kExactOnDeviceTokens = int64_t{1} << 20;

// The first that fits: keys and values on the device (with codes, for approximate search of more
// than kExactOnDeviceTokens), values pinned, codes alone on the device; then the same without
// values: keys on the device, codes alone there and keys pinned. ResourceExhausted, with what is
// wanted, what there is and what to do, where none does. The generation has settings.
absl::StatusOr<ResidencyPlan> PlanResidency(const Generation& generation, bool is_approximate,
                                            const ResidencyLimits& limits);

}  // namespace fovea::memory
