// Models as folders in Hugging Face's layout: config.json, safetensors (one file or shards with an
// index), and the files of the tokenizer.
#pragma once

#include <filesystem>
#include <memory>

#include "base/status.h"
#include "model/weights/checkpoint.h"

namespace fovea::model {

// As Checkpoint::Open; `path` is the folder, or one .safetensors file in it that holds the whole
// model.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFace(const std::filesystem::path& path);

}  // namespace fovea::model
