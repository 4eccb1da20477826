#include "train/adapter_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/file.h"
#include "base/strings.h"
#include "train/safetensors_writer.h"

namespace fovea::train {

using nlohmann::json;

std::string FotConfigText(const TrainableModel& model, const AdapterDescription& description) {
  const TrainableOptions& options = model.options();
  json fot = {{"mem_layers", options.mem_layers}, {"mem_positionals", options.mem_positionals},
              {"window", description.window},     {"top_k", description.top_k},
              {"encoding", "window-local"},       {"memory_key_gain", options.trains_key_gain}};
  if (!description.reread_layers.empty()) fot["reread_layers"] = description.reread_layers;
  if (!description.chat_template.empty()) fot["chat_template"] = description.chat_template;
  if (description.has_system_prompt) fot["system_prompt"] = description.system_prompt;
  if (!description.base_fingerprint.empty()) fot["base_fingerprint"] = description.base_fingerprint;
  return fot.dump(1) + "\n";
}

absl::Status WriteAdapter(const TrainableModel& model, const AdapterDescription& description,
                          const std::filesystem::path& folder) {
  const TrainableOptions& options = model.options();
  if (model.is_trained_whole()) {
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
  return WriteFileAtomic(folder / "fot_config.json", FotConfigText(model, description));
}

}  // namespace fovea::train
