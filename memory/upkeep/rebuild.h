// New indexes for a memory, made from the store while the old ones serve.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"

namespace fovea::memory {

struct RebuildResult {
  uint64_t generation = 0;
  int64_t segments_built = 0;
  int64_t segments_resumed = 0;                    // finished by an interrupted rebuild before
  std::vector<std::vector<double>> needle_recall;  // per segment, per memory layer
  std::vector<std::string> specs;                  // per segment
};

// Builds generation N+1 with `spec` (empty: the memory's) while N serves, then swaps and removes
// N's files. Interrupted, the next call with the same specification goes on. Before that it drops
// what interrupted ingests have left (memory/unfinished.h); it compacts the store and rebuilds the
// text index too. `memory` is open for writing, and nothing else ingests, seals or rebuilds
// meanwhile; it has published the new generation when this returns OK. InvalidArgument for a
// specification that is none, FailedPrecondition for an empty memory.
absl::StatusOr<RebuildResult> Rebuild(compute::Device& device, Memory* memory,
                                      const std::string& spec, const Progress& progress);

}  // namespace fovea::memory
