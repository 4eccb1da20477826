#include "model/weights/hugging_face_config.h"

#include <limits>

#include "model/weights/file_checks.h"
#include "model/weights/fot_config.h"
#include "model/weights/json_file.h"
#include "model/weights/model_layout.h"

namespace fovea::model {
namespace {

// What a family's configuration class assumes for keys that config.json leaves out.
struct FamilyDefaults {
  std::string_view model_type;
  int64_t vocab_size;
  int64_t intermediate_size;
  int64_t n_kv_heads;  // 0: as many as attention heads
  int64_t max_position_embeddings;
  int64_t head_dim = 0;  // 0: hidden_size / attention heads
};
constexpr FamilyDefaults kFamilies[] = {
    {"llama", 32000, 11008, 0, 2048},     {"mistral", 32000, 14336, 8, 131072},
    {"qwen2", 151936, 22016, 32, 32768},  {"qwen3", 151936, 22016, 32, 32768, 128},
    {"longllama", 32000, 11008, 0, 2048},
};

absl::StatusOr<const FamilyDefaults*> FindFamily(const Json& json) {
  ASSIGN_OR_RETURN(const std::string type, JsonString(json, "model_type", ""));
  for (const FamilyDefaults& family : kFamilies) {
    if (type == family.model_type) return &family;
  }
  return absl::UnimplementedError(
      StrCat("key model_type: '", Printable(type),
             "'; fovea reads llama, mistral, qwen2, qwen3 and longllama"));
}

bool IsQwen(const ModelConfig& config) {
  return config.architecture == "qwen2" || config.architecture == "qwen3";
}

absl::Status WantValue(const Json& json, std::string_view key, bool want) {
  ASSIGN_OR_RETURN(const bool value, JsonBool(json, key, want));
  if (value == want) return absl::OkStatus();
  return absl::UnimplementedError(
      StrCat("key ", key, ": ", value ? "true" : "false", "; fovea knows only the other"));
}

// The parameters of rope lie in rope_parameters (newer files), or in rope_scaling with rope_theta
// and the rest beside it; the kind is called rope_type or, once, type.
absl::Status ReadRope(const Json& json, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->rope_theta, JsonFloat(json, "rope_theta", 10000.0f));
  ASSIGN_OR_RETURN(float partial, JsonFloat(json, "partial_rotary_factor", 1.0f));
  const Json* rope = JsonFind(json, "rope_parameters");
  std::string_view key = "rope_parameters";
  if (rope == nullptr) {
    rope = JsonFind(json, "rope_scaling");
    key = "rope_scaling";
  }
  if (rope != nullptr && config->architecture == "longllama") {
    return absl::UnimplementedError(
        StrCat("key ", key,
               ": LongLLaMA's inference knows no scaling of positions, and longer "
               "texts go to its memory; want null"));
  }
  if (rope != nullptr) {
    if (!rope->is_object()) {
      return absl::InvalidArgumentError(StrCat("key ", key, ": want an object"));
    }
    ASSIGN_OR_RETURN(config->rope_theta, JsonFloat(*rope, "rope_theta", config->rope_theta));
    ASSIGN_OR_RETURN(partial, JsonFloat(*rope, "partial_rotary_factor", partial));
    ASSIGN_OR_RETURN(const std::string old_type, JsonString(*rope, "type", "default"));
    ASSIGN_OR_RETURN(const std::string type, JsonString(*rope, "rope_type", old_type));
    compute::RopeScaling& scaling = config->rope_scaling;
    if (type == "linear" || type == "llama3") {
      if (JsonFind(*rope, "factor") == nullptr) {
        return absl::InvalidArgumentError(StrCat("key ", key, ": factor is missing"));
      }
      ASSIGN_OR_RETURN(const float factor, JsonFloat(*rope, "factor", 1.0f));
      (type == "linear" ? scaling.linear_factor : scaling.llama3_factor) = factor;
    } else if (type != "default") {
      return absl::UnimplementedError(
          StrCat("key ", key, ": '", Printable(type), "'; fovea knows default, linear and llama3"));
    }
    if (type == "llama3") {
      ASSIGN_OR_RETURN(scaling.low_freq_factor, JsonFloat(*rope, "low_freq_factor", 1.0f));
      ASSIGN_OR_RETURN(scaling.high_freq_factor, JsonFloat(*rope, "high_freq_factor", 4.0f));
      ASSIGN_OR_RETURN(
          scaling.original_max_position_embeddings,
          JsonInteger(*rope, "original_max_position_embeddings", config->max_position_embeddings));
    }
  }
  if (partial != 1.0f) {
    return absl::UnimplementedError(
        StrCat("key partial_rotary_factor: ", partial, "; fovea rotates whole heads"));
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const Json& json, HuggingFaceConfig* config) {
  const auto to_id = [&](const Json& value, std::string_view key) -> absl::StatusOr<int32_t> {
    const auto id = JsonToInteger(value);
    if (id.has_value() && *id >= 0 && *id < config->model.vocab_size) {
      return static_cast<int32_t>(*id);
    }
    // Some files say −1 for "none".
    if (id.has_value() && *id == -1) return -1;
    return absl::InvalidArgumentError(
        StrCat("key ", key, ": want ids below vocab_size ", config->model.vocab_size));
  };
  const bool llama_defaults = !IsQwen(config->model);
  config->bos_id = llama_defaults ? 1 : -1;
  if (const auto it = json.find("bos_token_id"); it != json.end()) {
    config->bos_id = -1;
    if (!it->is_null()) {
      ASSIGN_OR_RETURN(config->bos_id, to_id(*it, "bos_token_id"));
    }
  }
  const auto it = json.find("eos_token_id");
  if (it == json.end()) {
    if (llama_defaults) config->eos_ids.push_back(2);
  } else if (it->is_array()) {
    for (const Json& value : *it) {
      ASSIGN_OR_RETURN(const int32_t id, to_id(value, "eos_token_id"));
      if (id >= 0) config->eos_ids.push_back(id);
    }
  } else if (!it->is_null()) {
    ASSIGN_OR_RETURN(const int32_t id, to_id(*it, "eos_token_id"));
    if (id >= 0) config->eos_ids.push_back(id);
  }
  return absl::OkStatus();
}

// LongLLaMA's own keys. Its reference encodes documents in windows of max_position_embeddings.
absl::Status ReadMemory(const Json& json, const ModelConfig& model, MemoryConfig* memory) {
  std::vector<int64_t> mem_layers;
  if (const Json* layers = JsonFind(json, "mem_layers"); layers != nullptr) {
    if (!layers->is_array()) {
      return absl::InvalidArgumentError("key mem_layers: want a list of layers");
    }
    for (const Json& layer : *layers) mem_layers.push_back(JsonToInteger(layer).value_or(-1));
  }
  RETURN_IF_ERROR(CheckMemLayers(mem_layers, model.n_layers));
  memory->mem_layers.assign(mem_layers.begin(), mem_layers.end());
  ASSIGN_OR_RETURN(memory->mem_positionals, JsonBool(json, "mem_positionals", true));
  ASSIGN_OR_RETURN(const int64_t last_context_length,
                   JsonInteger(json, "last_context_length", 1024));
  for (const auto& [key, value] :
       {std::pair<std::string_view, int64_t>{"last_context_length", last_context_length},
        {"max_position_embeddings", model.max_position_embeddings}}) {
    if (value < 1 || value > std::numeric_limits<int>::max()) {
      return absl::InvalidArgumentError(StrCat("key ", key, ": ", value, ", want at least 1"));
    }
  }
  ASSIGN_OR_RETURN(const std::string type, JsonString(json, "mem_dtype", "bfloat16"));
  if (type != "bfloat16" && type != "float32") {
    return absl::UnimplementedError(StrCat("key mem_dtype: '", Printable(type),
                                           "'; fovea keeps entries in bfloat16 or float32"));
  }
  memory->entry_type = type == "float32" ? EntryType::kFloat32 : EntryType::kBFloat16;
  memory->last_context_length = static_cast<int>(last_context_length);
  memory->window = static_cast<int>(model.max_position_embeddings);
  memory->encoding = "reference";
  memory->trained = !mem_layers.empty();
  return absl::OkStatus();
}

absl::StatusOr<HuggingFaceConfig> Parse(const Json& json) {
  HuggingFaceConfig result;
  ModelConfig& config = result.model;
  ASSIGN_OR_RETURN(const FamilyDefaults* family, FindFamily(json));
  config.architecture = family->model_type;
  ASSIGN_OR_RETURN(config.name, JsonString(json, "_name_or_path", ""));
  ASSIGN_OR_RETURN(config.vocab_size, JsonInteger(json, "vocab_size", family->vocab_size));
  ASSIGN_OR_RETURN(config.hidden_size, JsonInteger(json, "hidden_size", 4096));
  ASSIGN_OR_RETURN(config.intermediate_size,
                   JsonInteger(json, "intermediate_size", family->intermediate_size));
  ASSIGN_OR_RETURN(config.n_layers, JsonInteger(json, "num_hidden_layers", 32));
  ASSIGN_OR_RETURN(config.n_heads, JsonInteger(json, "num_attention_heads", 32));
  // An explicit null means the number of attention heads in all families.
  const bool null_kv_heads = json.contains("num_key_value_heads");
  ASSIGN_OR_RETURN(
      config.n_kv_heads,
      JsonInteger(json, "num_key_value_heads",
                  null_kv_heads || family->n_kv_heads == 0 ? config.n_heads : family->n_kv_heads));
  if (config.n_heads < 1) {
    return absl::InvalidArgumentError(
        StrCat("key num_attention_heads: ", config.n_heads, ", want at least 1"));
  }
  int64_t head_dim = family->head_dim;
  if (head_dim == 0) head_dim = config.hidden_size / config.n_heads;
  if (JsonFind(json, "head_dim") == nullptr && family->head_dim == 0 &&
      config.hidden_size % config.n_heads != 0) {
    return absl::InvalidArgumentError(StrCat("key hidden_size: ", config.hidden_size,
                                             " is no multiple of num_attention_heads ",
                                             config.n_heads, ", and there is no head_dim"));
  }
  ASSIGN_OR_RETURN(config.head_dim, JsonInteger(json, "head_dim", head_dim));
  ASSIGN_OR_RETURN(config.max_position_embeddings,
                   JsonInteger(json, "max_position_embeddings", family->max_position_embeddings));
  ASSIGN_OR_RETURN(config.rms_norm_eps, JsonFloat(json, "rms_norm_eps", 1e-6f));
  ASSIGN_OR_RETURN(config.tie_word_embeddings, JsonBool(json, "tie_word_embeddings", false));
  RETURN_IF_ERROR(ReadRope(json, &config));

  ASSIGN_OR_RETURN(const std::string activation, JsonString(json, "hidden_act", "silu"));
  if (activation != "silu" && activation != "swish") {
    return absl::UnimplementedError(
        StrCat("key hidden_act: '", Printable(activation), "'; fovea knows silu"));
  }
  if (JsonFind(json, "quantization_config") != nullptr) {
    return absl::UnimplementedError(
        "key quantization_config: fovea reads F32, F16 and BF16 safetensors; for a quantised model "
        "take a GGUF file");
  }
  config.attention_bias = config.architecture == "qwen2";
  config.qk_norm = config.architecture == "qwen3";
  if (!config.attention_bias) RETURN_IF_ERROR(WantValue(json, "attention_bias", false));
  RETURN_IF_ERROR(WantValue(json, "mlp_bias", false));

  int64_t sliding_window = 0;
  if (config.architecture == "mistral") {
    // Absent means the class's default, null none.
    const int64_t fallback = json.contains("sliding_window") ? 0 : 4096;
    ASSIGN_OR_RETURN(sliding_window, JsonInteger(json, "sliding_window", fallback));
  } else if (IsQwen(config)) {
    ASSIGN_OR_RETURN(const bool use_window, JsonBool(json, "use_sliding_window", false));
    if (use_window) {
      ASSIGN_OR_RETURN(sliding_window, JsonInteger(json, "sliding_window", 4096));
    }
  }
  config.max_position_embeddings =
      ContextWithinWindow(config.max_position_embeddings, sliding_window);
  RETURN_IF_ERROR(CheckModelConfig(config));
  RETURN_IF_ERROR(ReadTokenIds(json, &result));
  if (config.architecture == "longllama") {
    RETURN_IF_ERROR(ReadMemory(json, config, &result.memory));
  }
  return result;
}

}  // namespace

absl::StatusOr<HuggingFaceConfig> ReadHuggingFaceConfig(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path));
  absl::StatusOr<HuggingFaceConfig> config = Parse(json);
  if (!config.ok()) return Annotate(config.status(), path.native());
  return config;
}

}  // namespace fovea::model
