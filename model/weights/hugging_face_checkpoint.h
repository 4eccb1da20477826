// Models as folders in Hugging Face's layout: config.json, safetensors (one file or shards with an
// index), the files of the tokenizer, and, of a model that was trained for memory as a whole,
// fot_config.json.
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
