// config.json of Hugging Face's LLaMA, Mistral, Qwen2 and Qwen3 models, and of LongLLaMA.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/status.h"
#include "model/config.h"

namespace fovea::model {

struct HuggingFaceConfig {
  ModelConfig model;    // checked
  MemoryConfig memory;  // of a LongLLaMA; else no memory layers
  int32_t bos_id = -1;
  std::vector<int32_t> eos_ids;  // the first one is the tokenizer's
};

// Missing keys have the defaults of the family's published configuration class. NotFound;
// InvalidArgument names a key and what is wrong with it, Unimplemented one whose value changes the
// computation into something that fovea lacks. Messages begin with the path.
absl::StatusOr<HuggingFaceConfig> ReadHuggingFaceConfig(const std::filesystem::path& path);

}  // namespace fovea::model
