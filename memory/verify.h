// Checks every record and file of a memory, names what is damaged, and repairs what can be made
// again from what is sound: blocks from their window's tokens, index files from blocks, the text
// index from texts.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::memory {

struct VerifyOptions {
  bool repair = false;
  // Needed to repair blocks; may be null otherwise.
  model::Transformer* model = nullptr;
  Progress progress;
};

struct VerifyFinding {
  std::string kind;      // "document", "window", "block", "sample", "link", "index_file", "text_index"
  std::string document;  // id, where one is concerned
  std::string what;
};

struct VerifyReport {
  bool ok = true;  // nothing is damaged (any more, after a repair)
  int64_t documents = 0;
  int64_t blocks = 0;
  int64_t index_files = 0;
  std::vector<VerifyFinding> damaged;
  std::vector<VerifyFinding> repaired;
};

absl::StatusOr<VerifyReport> Verify(compute::Device& device, Memory* memory,
                                    const VerifyOptions& options);

}  // namespace fovea::memory
