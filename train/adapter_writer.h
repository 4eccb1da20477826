// Writes what was trained: as an adapter that model/weights/adapter.h reads, PEFT's files with
// fot_config.json and the key gains; or, of a model that was trained whole, as a Hugging Face
// folder with fot_config.json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "train/trainable_model.h"

namespace fovea::train {

struct AdapterDescription {
  std::string base_model;        // for adapter_config.json; may be empty
  std::string base_fingerprint;  // of the checkpoint
  int window = 1024;
  int top_k = 16;
  std::vector<int> reread_layers;  // of the memory layers; may be empty
  std::string chat_template;       // "chatml", …; empty: the model's own
  bool has_system_prompt = false;
  std::string system_prompt;
};

// Puts the files into `folder`, which is made where there is none; each replaces an older one in
// one step. FailedPrecondition for a model whose matrices were trained whole.
absl::Status WriteAdapter(const TrainableModel& model, const AdapterDescription& description,
                          const std::filesystem::path& folder);

// The text of fot_config.json.
std::string FotConfigText(const TrainableModel& model, const AdapterDescription& description);

}  // namespace fovea::train
