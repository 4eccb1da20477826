// Opens a memory that questions can be answered from.
#pragma once

#include <filesystem>
#include <memory>

#include "base/status.h"
#include "memory/memory.h"

namespace fovea::answer {

// A memory that something was ingested into; the errors (NotFound where there is none,
// FailedPrecondition for an empty one) say how to make one. With `salvage` an empty one is opened
// too: its settings may be what is damaged.
absl::StatusOr<std::unique_ptr<memory::Memory>> OpenMemory(const std::filesystem::path& folder,
                                                           storage::OpenMode mode,
                                                           bool salvage = false);

}  // namespace fovea::answer
