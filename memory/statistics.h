// What a memory holds, in numbers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "memory/memory.h"

namespace fovea::memory {

struct Stats {
  int format_version = 0;
  int64_t documents = 0;
  std::vector<std::pair<std::string, int64_t>> collections;  // name, documents
  uint64_t tokens = 0;
  // Those of `tokens`, of documents that are not complete (memory/unfinished.h), and deleted ones.
  uint64_t slots = 0;
  uint64_t deleted_slots = 0;
  int64_t unfinished_documents = 0;
  uint64_t unfinished_tokens = 0;
  uint64_t text_bytes = 0;
  uint64_t block_bytes = 0;
  uint64_t index_bytes = 0;
  struct SegmentStats {
    uint64_t tokens = 0;
    std::string index;  // specification
    std::string state;  // "sealed", "growing", "damaged: …"
    std::vector<double> needle_recall;
    // Rescored per query head, in the layer that needs most; 0: searched exactly.
    int n_candidates = 0;
  };
  std::vector<SegmentStats> segments;
};
// How questions are searched for, in the default mode, and where what is read lies.
struct SearchStats {
  std::string by;  // "codes", "indexes" or "keys" on a GPU, "indexes" or "keys" on the host
  bool is_on_gpu = false;
  // On the GPU, and in pinned host memory; 0 where the host searches.
  uint64_t gpu_key_bytes = 0;
  uint64_t gpu_code_bytes = 0;
  uint64_t gpu_index_bytes = 0;
  uint64_t gpu_value_bytes = 0;
  uint64_t pinned_key_bytes = 0;
  uint64_t pinned_value_bytes = 0;
  uint64_t stored_value_bytes = 0;  // that are read from the store, those of kept keys
  std::string note;                 // why the host searches though the device is a GPU
  std::string faiss;  // "1.7.3, CPU", or "1.15.0, CPU and GPU": the version, and its parts
};
// Of the current generation, which is planned, not loaded.
SearchStats ComputeSearchStats(const Memory& memory, const compute::Device& device);

// Of the current generation; bytes as the files take them now.
absl::StatusOr<Stats> ComputeStats(Memory& memory);

}  // namespace fovea::memory
