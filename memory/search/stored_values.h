// Values that a search on a device wants and that lie in the store: those of the keys that it kept,
// read as the host's search reads them (searched_windows.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "memory/resident_entries.h"
#include "memory/search/searched_windows.h"
#include "model/memory_source.h"

namespace fovea::memory {

// Not thread-safe; reads with the device's threads.
class StoredValues {
 public:
  // `windows`: those that may be searched, indexes into the generation's. The device outlives it.
  StoredValues(compute::Device* device, std::shared_ptr<const Generation> generation,
               std::vector<uint32_t> windows, Progress progress)
      : device_(device),
        windows_(device, std::move(generation), std::move(windows), {}, std::move(progress)) {}

  // positions: [n_queries, n_heads, top_k] of `query`, in the host's memory; those of `entries`
  // begin at first_position. to = [n_queries, n_heads, top_k, head_dim], in the host's memory:
  // their values, in the stored type; the others' places are left as they are. Errors of reading,
  // which name the document.
  absl::Status Gather(const model::MemoryQuery& query, std::span<const int64_t> positions,
                      const ResidentEntries& entries, int64_t first_position, std::byte* to);

 private:
  compute::Device* device_;
  SearchedWindows windows_;
};

}  // namespace fovea::memory
