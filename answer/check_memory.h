// Checks a memory that may be damaged, and repairs it: finds the version and the model that it
// takes, and opens it so that what can be read is read (memory/upkeep/verify.h has the walk
// itself).
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "compute/device.h"
#include "memory/upkeep/verify.h"

namespace fovea::answer {

struct CheckOptions {
  std::filesystem::path memory;
  bool repair = false;
  // Where the memory's model and adapter lie, if not where they were.
  std::optional<std::string> model = {};
  std::optional<std::string> adapter = {};
  Progress progress = {};
  // What people should know of the model and its adapter; may be null.
  std::function<void(const std::string&)> warn = {};
};

// A memory that is too damaged to open is a finding ("memory"), and no error. NotFound where there
// is none; with `repair`, Unavailable where another process writes to it, and the errors of a model
// that is needed and does not load.
absl::StatusOr<memory::VerifyReport> CheckMemory(compute::Device& device,
                                                 const CheckOptions& options);

}  // namespace fovea::answer
