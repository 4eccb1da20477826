// What a memory holds, in numbers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "memory/memory.h"

namespace fovea::memory {

struct Stats {
  int format_version = 0;
  int64_t documents = 0;
  std::vector<std::pair<std::string, int64_t>> collections;  // name, documents
  uint64_t tokens = 0;
  uint64_t slots = 0;
  uint64_t deleted_slots = 0;
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
// Of the current generation; bytes as the files take them now.
absl::StatusOr<Stats> ComputeStats(Memory& memory);

}  // namespace fovea::memory
