// Documents out of a memory, by their ids or by their collections.
#pragma once

#include <string>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "memory/memory.h"

namespace fovea::memory {

// NotFound where a collection has no document.
absl::Status CheckCollections(const Generation& generation,
                              const std::vector<std::string>& collections);

// Deletes the documents that `ids` (or beginnings of ids) name, and all that is in `collections`: a
// document that is in others, too, stays in those. Nothing is deleted where one of them is not
// found. See Memory::RemoveForGood.
Memory::Removed DeleteDocuments(Memory* memory, const std::vector<std::string>& ids,
                                const std::vector<std::string>& collections,
                                const Progress& progress);

}  // namespace fovea::memory
