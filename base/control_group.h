// The control groups (version 1 or 2) that bound what this process may use.
#pragma once

#include <filesystem>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace fovea {

// Calls `visit` with the folder of each group that this process is in and that has this controller
// ("memory", "cpu"): its own one and those around it, as far as they can be seen. `root` stands for
// "/" in tests. Nothing where the system says nothing.
void ForEachControlGroup(
    const std::filesystem::path& root, std::string_view controller,
    absl::FunctionRef<void(const std::filesystem::path& group, bool is_version2)> visit);

}  // namespace fovea
