// New indexes for a memory, and repairs: everything derived can be made again from the store.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::memory {

struct RebuildResult {
  uint64_t generation = 0;
  int64_t segments_built = 0;
  int64_t segments_resumed = 0;  // finished by an interrupted rebuild before
  std::vector<std::vector<double>> needle_recall;  // per segment, per memory layer
  std::vector<std::string> specs;                  // per segment
};

// Builds generation N+1 with `spec` (empty: the memory's) while N serves, then swaps and removes N's
// files. Interrupted, the next call with the same specification goes on. Compacts the store and
// rebuilds the text index too. `memory` is open for writing.
absl::StatusOr<RebuildResult> Rebuild(compute::Device& device, Memory* memory,
                                      const std::string& spec, const Progress& progress);

struct ReencodeResult {
  uint64_t documents = 0;
  uint64_t tokens = 0;
};
// Encodes every stored text again with `model` into a new version folder, then swaps (CURRENT).
// Resumable. The folder's memory must be open for writing by nobody; readers follow on Refresh.
struct ReencodeOptions {
  std::string model_name;
  std::string adapter_name;
  std::string index_spec;  // empty: as it was
  Progress progress;
};
absl::StatusOr<ReencodeResult> Reencode(const std::filesystem::path& folder,
                                        model::Transformer* model, const ReencodeOptions& options);

}  // namespace fovea::memory
