// What an ingest that was interrupted has left in the store: documents that are not complete, which
// nobody sees, and their windows. The same ingest again goes on from them and takes away what it
// does not need; where it never comes, a rebuild drops them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "memory/generation.h"

namespace fovea::memory {

struct Unfinished {
  std::vector<storage::DocumentNumber> documents;
  uint64_t n_tokens = 0;  // of their windows, those left out that a document of the view has, too
};

// Beside the documents of `view`. An ingest that is under way has such documents as well.
absl::StatusOr<Unfinished> FindUnfinished(const Generation& view);

}  // namespace fovea::memory
