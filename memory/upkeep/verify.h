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
  // "document", "window", "block", "sample", "link", "segment", "index_file", "text_index",
  // "settings", "table" and "file" (of the store); of `fovea verify` also "current" (RestoreCurrent
  // in versions.h) and "memory" (that does not open)
  std::string kind;
  std::string document;  // id, where one is concerned; may be empty
  std::string what;
};

struct VerifyReport {
  bool ok = true;  // nothing is damaged (any more, after a repair)
  // The store has table files that cannot be read ("table" findings), or lost a record of its own
  // ("settings"): MoveToNewStore (salvage.h) comes before a repair.
  bool needs_new_store = false;
  int64_t documents = 0;
  int64_t blocks = 0;
  int64_t index_files = 0;
  std::vector<VerifyFinding> damaged;
  std::vector<VerifyFinding> repaired;
  // What is no damage, but a repair puts right too ("text_index" that an interrupted ingest left
  // behind the store).
  std::vector<VerifyFinding> notes;
};

// Works on a reader too, without repair. With repair, nothing else seals or rebuilds meanwhile.
// What cannot be repaired stays in `damaged` with words on what to do; a document whose list of
// windows is lost is removed, and says so there.
absl::StatusOr<VerifyReport> Verify(compute::Device& device, Memory* memory,
                                    const VerifyOptions& options);

}  // namespace fovea::memory
