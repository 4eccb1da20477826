// fot_config.json: how an adapter, or a Hugging Face folder whose model was trained so as a whole,
// uses memory.
#pragma once

#include <filesystem>

#include "base/status.h"
#include "model/config.h"

namespace fovea::model {

struct FotConfig {
  MemoryConfig memory;
  bool memory_key_gain = false;  // the adapter has a gain for each memory layer
};

// Checks it against the model's configuration. NotFound; InvalidArgument or Unimplemented name the
// key. Unknown keys are errors: they may change what the adapter means.
absl::StatusOr<FotConfig> ReadFotConfig(const std::filesystem::path& path,
                                        const ModelConfig& config);

// mem_layers: an ascending list of layers of the model.
absl::Status CheckMemLayers(const std::vector<int64_t>& mem_layers, int64_t n_layers);

}  // namespace fovea::model
