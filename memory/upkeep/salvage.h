// A sound store in the place of one that cannot be mended where it is.
#pragma once

#include <filesystem>

#include "base/progress.h"
#include "base/status.h"

namespace fovea::memory {

// Copies what can be read of the current version's store, and its other files, to the next version
// folder, makes that one current and removes the old one. For stores with table files that cannot
// be read (VerifyReport::needs_new_store); Verify then finds what is missing and makes it again.
// Needs free space for a second store. The memory must be open for writing by nobody (Unavailable).
// Errors leave the memory as it was.
absl::Status MoveToNewStore(const std::filesystem::path& folder, const Progress& progress);

}  // namespace fovea::memory
