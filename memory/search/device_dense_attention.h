// Attention on a device to every token of a memory that a search may select: as AttendDensely
// (dense_attention.h) on the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"
#include "compute/buffer.h"
#include "compute/coded_memory_attention.h"
#include "compute/device.h"
#include "model/memory_source.h"

namespace fovea::memory {

// Tokens [begin, end) of a part.
struct PartRun {
  size_t part = 0;
  int64_t begin = 0;
  int64_t end = 0;
};
// A run is two or three kernels: with more of them the host is not slower.
inline constexpr size_t kMaxDenseRuns = 256;

// Not thread-safe.
class DeviceDenseAttention {
 public:
  // The device outlives it.
  explicit DeviceDenseAttention(compute::Device* device) : device_(device) {}

  // output and lse as of MemorySource::Attend, over the keys and values of the runs, which lie in
  // the device's memory. Queued; may be recorded once it was called with as many queries before.
  absl::Status Attend(std::span<const compute::CodedMemoryPart> parts,
                      std::span<const PartRun> runs, const model::MemoryQuery& query, float* output,
                      float* lse);

 private:
  compute::Device* device_;
  compute::Buffer other_output_, other_lse_;  // of a run, before it is merged
};

}  // namespace fovea::memory
