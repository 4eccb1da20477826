// Writes a model that was trained whole as a Hugging Face folder with its fot_config.json, which
// every command opens.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/status.h"
#include "train/adapter_writer.h"
#include "train/trainable_model.h"

namespace fovea::train {

// What lies beside the weights, by name: config.json, tokenizer.json, ….
using ModelFiles = std::map<std::string, std::string>;

// Those of a checkpoint in Hugging Face's form, a folder or a file in one: configuration and
// tokenizer. Unimplemented for a GGUF file, which has none.
absl::StatusOr<ModelFiles> ReadModelFiles(const std::filesystem::path& checkpoint);

// Of a model that was trained whole, without key gains.
absl::Status WriteModel(const TrainableModel& model, const ModelFiles& files,
                        const AdapterDescription& description, const std::filesystem::path& folder);

}  // namespace fovea::train
