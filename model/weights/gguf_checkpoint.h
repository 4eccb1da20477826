// Models in GGUF files, as llama.cpp's conversion writes them.
#pragma once

#include <filesystem>
#include <memory>

#include "base/status.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {

// As Checkpoint::Open.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::filesystem::path& path);

}  // namespace fovea::model
