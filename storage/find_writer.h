// Who writes to a store.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>

namespace fovea::storage {

// The process, another one than this, that has the store in `folder` open for writing, as far as
// the system tells (/proc/locks). Thread-safe.
std::optional<pid_t> FindWriter(const std::filesystem::path& folder);

}  // namespace fovea::storage
