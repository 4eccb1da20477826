// Makes generations: reads what an opened version holds now into one consistent view.
#pragma once

#include <memory>
#include <vector>

#include "base/status.h"
#include "memory/generation.h"
#include "memory/opened_version.h"

namespace fovea::memory {

// What the encoding of a document that attends to the memory may see: complete documents, the
// stored windows of those that are being ingested, and none of those that they will replace.
struct IngestView {
  std::vector<storage::DocumentNumber> with;     // not complete
  std::vector<storage::DocumentNumber> without;  // complete
};

// `previous` (may be null), of the same version: segments that it has opened are shared. DataLoss
// where a part of a document is missing, or a record is damaged. Thread-safe.
absl::StatusOr<std::shared_ptr<const Generation>> BuildGeneration(
    const std::shared_ptr<OpenedVersion>& source, const Generation* previous,
    const IngestView& view = {});

}  // namespace fovea::memory
