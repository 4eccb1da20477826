// A memory that lives in RAM and is attended to densely: every entry takes part, as in LongLLaMA's
// inference. What the reference's behaviour is checked with, and the memory of a session that has
// no folder.
#pragma once

#include <cstdint>
#include <vector>

#include "base/entries.h"
#include "compute/device.h"
#include "model/encoded_window.h"
#include "model/memory_source.h"

namespace fovea::model {

// A memory that the local context overflows into.
class GrowingMemory : public MemorySource {
 public:
  // Entries become visible to the next Attend, after all earlier ones.
  virtual absl::Status Append(MemoryEntries entries) = 0;
  virtual int64_t n_tokens() const = 0;
};

// On the device that the model runs on. Copyable. Not thread-safe.
class DenseMemory final : public GrowingMemory {
 public:
  // `type`: of the entries, LongLLaMA's mem_dtype. bfloat16: rounded once, to nearest even, when
  // they are appended.
  DenseMemory(compute::Device* device, EntryType type) : device_(device), type_(type) {}

  DenseMemory(const DenseMemory& other)
      : GrowingMemory(other),
        device_(other.device_),
        type_(other.type_),
        entries_(other.entries_) {}
  DenseMemory& operator=(const DenseMemory& other) { return *this = DenseMemory(other); }
  DenseMemory(DenseMemory&&) = default;
  DenseMemory& operator=(DenseMemory&&) = default;

  MemoryPlace place() const override { return MemoryPlace::kDevice; }
  absl::Status Attend(const MemoryQuery& query, float* output, float* lse) override;
  absl::Status Append(MemoryEntries entries) override;
  int64_t n_tokens() const override { return entries_.n_tokens; }
  const MemoryEntries& entries() const { return entries_; }

 private:
  compute::Device* device_;
  EntryType type_;
  MemoryEntries entries_;  // float32, already rounded
  // The same on the device, [n_mem_layers]; empty until they are attended to.
  std::vector<compute::Buffer> keys_;
  std::vector<compute::Buffer> values_;
};

}  // namespace fovea::model
