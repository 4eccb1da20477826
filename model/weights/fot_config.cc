#include "model/weights/fot_config.h"

#include <algorithm>

#include "model/weights/file_checks.h"
#include "model/weights/json_file.h"

namespace fovea::model {
namespace {

absl::StatusOr<int> PositiveInt(const Json& json, std::string_view key, int fallback,
                                int64_t largest) {
  ASSIGN_OR_RETURN(const int64_t value, JsonInteger(json, key, fallback));
  if (value < 1 || value > largest) {
    return absl::InvalidArgumentError(StrCat("key ", key, ": ", value, ", want 1 to ", largest));
  }
  return static_cast<int>(value);
}

absl::StatusOr<FotConfig> Parse(const Json& json, const ModelConfig& config) {
  static constexpr std::string_view kKeys[] = {
      "mem_layers",       "mem_positionals", "window",        "top_k",
      "encoding",         "memory_key_gain", "chat_template", "system_prompt",
      "base_fingerprint", "reread_layers",   "reread_by"};
  for (const auto& [key, value] : json.items()) {
    if (std::find(std::begin(kKeys), std::end(kKeys), key) == std::end(kKeys)) {
      return absl::UnimplementedError(
          StrCat("key ", Printable(key), " is unknown to this version of fovea"));
    }
  }
  FotConfig fot;
  MemoryConfig& memory = fot.memory;
  const Json* layers = JsonFind(json, "mem_layers");
  std::vector<int64_t> mem_layers;
  if (layers == nullptr || !layers->is_array() || layers->empty()) {
    return absl::InvalidArgumentError("key mem_layers: want a list of layers");
  }
  for (const Json& layer : *layers) mem_layers.push_back(JsonToInteger(layer).value_or(-1));
  RETURN_IF_ERROR(CheckMemLayers(mem_layers, config.n_layers));
  memory.mem_layers.assign(mem_layers.begin(), mem_layers.end());
  if (const Json* found = JsonFind(json, "reread_layers"); found != nullptr) {
    if (!found->is_array()) {
      return absl::InvalidArgumentError("key reread_layers: want a list of layers");
    }
    for (const Json& layer : *found) {
      const auto number = static_cast<int>(JsonToInteger(layer).value_or(-1));
      if (std::find(mem_layers.begin(), mem_layers.end(), number) == mem_layers.end()) {
        return absl::InvalidArgumentError(
            StrCat("key reread_layers: ", number, ", want some of mem_layers"));
      }
      memory.reread_layers.push_back(number);
    }
  }
  ASSIGN_OR_RETURN(const std::string reread_by, JsonString(json, "reread_by", "bm25"));
  if (reread_by != "bm25" && reread_by != "both") {
    return absl::InvalidArgumentError(
        StrCat("key reread_by: '", Printable(reread_by), "', want bm25 or both"));
  }
  memory.rereads_by_both = reread_by == "both";
  ASSIGN_OR_RETURN(memory.mem_positionals, JsonBool(json, "mem_positionals", true));
  ASSIGN_OR_RETURN(memory.window,
                   PositiveInt(json, "window", memory.window, config.max_position_embeddings));
  ASSIGN_OR_RETURN(memory.top_k, PositiveInt(json, "top_k", memory.top_k, 65536));
  ASSIGN_OR_RETURN(memory.encoding, JsonString(json, "encoding", memory.encoding));
  if (memory.encoding != "window-local") {
    return absl::UnimplementedError(
        StrCat("key encoding: '", Printable(memory.encoding), "'; fovea knows window-local"));
  }
  ASSIGN_OR_RETURN(memory.chat_template, JsonString(json, "chat_template", ""));
  memory.has_system_prompt = JsonFind(json, "system_prompt") != nullptr;
  ASSIGN_OR_RETURN(memory.system_prompt, JsonString(json, "system_prompt", ""));
  // For choosing an adapter by its model; checked here, used where adapters are listed.
  RETURN_IF_ERROR(JsonString(json, "base_fingerprint", "").status());
  ASSIGN_OR_RETURN(fot.memory_key_gain, JsonBool(json, "memory_key_gain", false));
  memory.trained = true;
  return fot;
}

}  // namespace

absl::Status CheckMemLayers(const std::vector<int64_t>& mem_layers, int64_t n_layers) {
  for (size_t i = 0; i < mem_layers.size(); ++i) {
    if (mem_layers[i] < 0 || mem_layers[i] >= n_layers) {
      return absl::InvalidArgumentError(
          StrCat("key mem_layers: ", mem_layers[i], ", want layers from 0 to ", n_layers - 1));
    }
    if (i > 0 && mem_layers[i] <= mem_layers[i - 1]) {
      return absl::InvalidArgumentError(
          "key mem_layers: want layers in ascending order, each once");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<FotConfig> ReadFotConfig(const std::filesystem::path& path,
                                        const ModelConfig& config) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  absl::StatusOr<FotConfig> fot = Parse(json, config);
  if (!fot.ok()) return Annotate(fot.status(), path.native());
  return fot;
}

}  // namespace fovea::model
