#include "train/adapter_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "train/safetensors_writer.h"

namespace fovea::train {
namespace {

using nlohmann::json;

json FotConfigOf(const TrainableModel& model, const AdapterDescription& description) {
  const TrainableOptions& options = model.options();
  json fot = {{"mem_layers", options.mem_layers}, {"mem_positionals", options.mem_positionals},
              {"window", description.window},     {"top_k", description.top_k},
              {"encoding", "window-local"},       {"memory_key_gain", options.trains_key_gain}};
  if (!description.reread_layers.empty()) fot["reread_layers"] = description.reread_layers;
  if (!description.chat_template.empty()) fot["chat_template"] = description.chat_template;
  if (description.has_system_prompt) fot["system_prompt"] = description.system_prompt;
  if (!description.base_fingerprint.empty()) fot["base_fingerprint"] = description.base_fingerprint;
  return fot;
}

bool TrainsWhole(const TrainableModel& model) {
  using Update = TrainableOptions::Update;
  return model.options().update == Update::kFull || model.options().update == Update::kScratch;
}

}  // namespace

absl::Status WriteAdapter(const TrainableModel& model, const AdapterDescription& description,
                          const std::filesystem::path& folder) {
  const TrainableOptions& options = model.options();
  if (TrainsWhole(model)) {
    return absl::FailedPreconditionError(
        "matrices that were trained whole are a checkpoint, not an adapter");
  }
  SafetensorsWriter writer;
  std::set<std::string> targets;
  int64_t rank = options.lora_rank;
  // Gains first and in float32: they are few, and factors of everything.
  for (const TrainableParameter& parameter : model.parameters()) {
    if (parameter.is_key_gain) {
      writer.Add(parameter.name, parameter.value.detach().exp(), torch::kFloat32);
      continue;
    }
    writer.Add(parameter.name, parameter.value, torch::kBFloat16);
    // base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
    const size_t end = parameter.name.find(".lora_");
    const size_t begin = parameter.name.rfind('.', end - 1) + 1;
    targets.insert(parameter.name.substr(begin, end - begin));
    if (parameter.name.find(".lora_A.") != std::string::npos) rank = parameter.value.size(0);
  }
  const json adapter = {{"peft_type", "LORA"},
                        {"task_type", "CAUSAL_LM"},
                        {"base_model_name_or_path", description.base_model},
                        {"r", rank},
                        {"lora_alpha", options.lora_alpha},
                        {"lora_dropout", 0.0},
                        {"bias", "none"},
                        {"fan_in_fan_out", false},
                        {"target_modules", targets}};
  RETURN_IF_ERROR(CreateDirectories(folder));
  RETURN_IF_ERROR(writer.Write(folder / "adapter_model.safetensors"));
  RETURN_IF_ERROR(WriteFileAtomic(folder / "adapter_config.json", adapter.dump(1) + "\n"));
  return WriteFileAtomic(folder / "fot_config.json",
                         FotConfigOf(model, description).dump(1) + "\n");
}

absl::StatusOr<ModelFiles> ReadModelFiles(const std::filesystem::path& checkpoint) {
  if (checkpoint.extension() == ".gguf") {
    return absl::UnimplementedError(
        StrCat(checkpoint,
               ": a model that is trained whole is written as a Hugging Face folder, "
               "with the configuration and the tokenizer of the one that it was: a GGUF file has "
               "no such files; name the model's folder with safetensors, or train a LoRA"));
  }
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::is_directory(checkpoint, error) ? checkpoint : checkpoint.parent_path();
  ModelFiles files;
  for (const char* name :
       {"config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
        "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "generation_config.json"}) {
    if (!std::filesystem::exists(folder / name, error)) continue;
    ASSIGN_OR_RETURN(files[name], ReadFile(folder / name));
  }
  return files;
}

absl::Status WriteModel(const TrainableModel& model, const ModelFiles& files,
                        const AdapterDescription& description,
                        const std::filesystem::path& folder) {
  FOVEA_CHECK(TrainsWhole(model) && !model.options().trains_key_gain);
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : model.CheckpointTensors()) {
    writer.Add(name, tensor, tensor.scalar_type());
  }
  AdapterDescription own = description;
  own.base_fingerprint.clear();
  RETURN_IF_ERROR(CreateDirectories(folder));
  RETURN_IF_ERROR(writer.Write(folder / "model.safetensors"));
  for (const auto& [name, content] : files) {
    RETURN_IF_ERROR(WriteFileAtomic(folder / name, content));
  }
  return WriteFileAtomic(folder / "fot_config.json", FotConfigOf(model, own).dump(1) + "\n");
}

}  // namespace fovea::train
