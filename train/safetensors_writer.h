// Writes tensors into the container safetensors: a header that names them and where they lie, and
// their bytes.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "train/torch.h"

namespace fovea::train {

// Not thread-safe. Holds the bytes of all that was added.
class SafetensorsWriter {
 public:
  // `type`: float32 or bfloat16.
  void Add(const std::string& name, const torch::Tensor& tensor, torch::Dtype type);
  // Replaces an older file in one step.
  absl::Status Write(const std::filesystem::path& path) const;

 private:
  nlohmann::json header_ = {{"__metadata__", {{"format", "pt"}}}};
  std::string bytes_;
};

}  // namespace fovea::train
