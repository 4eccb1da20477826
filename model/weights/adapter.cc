#include "model/weights/adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "model/weights/field_hasher.h"
#include "model/weights/file_checks.h"
#include "model/weights/fot_config.h"
#include "model/weights/json_file.h"
#include "model/weights/model_layout.h"
#include "model/weights/safetensors_file.h"

namespace fovea::model {
namespace {

// rank_pattern or alpha_pattern: values for modules whose name ends in the key, at a dot. PEFT's
// keys are regular expressions; fovea takes the plain names among them.
class Pattern {
 public:
  static absl::StatusOr<Pattern> Read(const Json& json, std::string_view key) {
    Pattern pattern;
    const Json* object = JsonFind(json, key);
    if (object == nullptr) return pattern;
    if (!object->is_object()) {
      return absl::InvalidArgumentError(StrCat("key ", key, ": want an object"));
    }
    for (const auto& [name, value] : object->items()) {
      const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
        return c == '.' || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
               (c >= 'A' && c <= 'Z');
      });
      if (!plain) {
        return absl::UnimplementedError(StrCat("key ", key, ": the regular expression '",
                                               Printable(name), "'; fovea takes plain names"));
      }
      if (!value.is_number()) {
        return absl::InvalidArgumentError(StrCat("key ", key, ": want a number for ", name));
      }
      pattern.values_.emplace(name, value.get<double>());
    }
    return pattern;
  }

  double ValueOr(std::string_view module, double fallback) const {
    for (const auto& [name, value] : values_) {
      if (module == name || absl::EndsWith(ToAbsl(module), "." + name)) return value;
    }
    return fallback;
  }

 private:
  std::map<std::string, double> values_;
};

struct LoraConfig {
  int64_t rank = 0;
  double alpha = 0;
  bool rank_stabilised = false;
  Pattern rank_pattern;
  Pattern alpha_pattern;
};

absl::Status RefuseIf(bool condition, std::string_view key, std::string_view why) {
  if (!condition) return absl::OkStatus();
  return absl::UnimplementedError(StrCat("key ", key, ": ", why));
}

// Settings that make something else of an adapter than a low-rank update of linear layers which
// always holds. PEFT writes null, false or an empty list where they are not used.
absl::Status CheckOtherSettings(const Json& json) {
  constexpr std::pair<std::string_view, std::string_view> kUnknown[] = {
      {"alora_invocation_tokens", "an activated LoRA holds from these tokens on; fovea's always"},
      {"arrow_config", "fovea does not route between adapters"},
      {"layer_replication", "fovea does not repeat layers"},
      {"target_parameters", "fovea's LoRA is of linear layers, not of single parameters"},
      {"trainable_token_indices", "fovea does not replace rows of the embedding table"},
      {"use_bdlora", "fovea does not know block-diagonal LoRA"},
      {"use_qalora", "fovea does not know QALoRA"},
  };
  for (const auto& [key, why] : kUnknown) {
    const Json* value = JsonFind(json, key);
    const bool is_set = value != nullptr && !value->is_null() && *value != false &&
                        !(value->is_structured() && value->empty());
    RETURN_IF_ERROR(RefuseIf(is_set, key, why));
  }
  return absl::OkStatus();
}

// Many ways of beginning a training change the base model's weights (PiSSA, OLoRA, CorDA, LoftQ,
// LoRA-GA), to which the adapter alone does not lead back; new ones keep coming, so only those are
// taken that leave them alone. PEFT writes true here when it has converted the adapter to the
// original weights.
absl::Status CheckInitialWeights(const Json& json) {
  const Json* init = JsonFind(json, "init_lora_weights");
  if (init == nullptr || !init->is_string()) return absl::OkStatus();
  const auto name = init->get<std::string>();
  for (const std::string_view harmless : {"gaussian", "eva", "orthogonal"}) {
    if (name == harmless) return absl::OkStatus();
  }
  return absl::UnimplementedError(
      StrCat("key init_lora_weights: '", Printable(name),
             "' may have changed the base model's weights; save the adapter converted to plain "
             "LoRA"));
}

absl::StatusOr<LoraConfig> ParseLoraConfig(const Json& json) {
  ASSIGN_OR_RETURN(const std::string type, JsonString(json, "peft_type", ""));
  if (type != "LORA") {
    return absl::UnimplementedError(
        StrCat("key peft_type: '", Printable(type), "'; fovea reads LORA"));
  }
  LoraConfig config;
  ASSIGN_OR_RETURN(config.rank, JsonInteger(json, "r", 8));
  ASSIGN_OR_RETURN(const float alpha, JsonFloat(json, "lora_alpha", 8));
  config.alpha = alpha;
  if (config.rank < 1) {
    return absl::InvalidArgumentError(StrCat("key r: ", config.rank, ", want at least 1"));
  }
  ASSIGN_OR_RETURN(config.rank_stabilised, JsonBool(json, "use_rslora", false));
  ASSIGN_OR_RETURN(config.rank_pattern, Pattern::Read(json, "rank_pattern"));
  ASSIGN_OR_RETURN(config.alpha_pattern, Pattern::Read(json, "alpha_pattern"));
  ASSIGN_OR_RETURN(const bool fan_in_fan_out, JsonBool(json, "fan_in_fan_out", false));
  RETURN_IF_ERROR(RefuseIf(fan_in_fan_out, "fan_in_fan_out", "the models have no such layers"));
  ASSIGN_OR_RETURN(const bool dora, JsonBool(json, "use_dora", false));
  RETURN_IF_ERROR(RefuseIf(dora, "use_dora", "fovea does not know DoRA"));
  ASSIGN_OR_RETURN(const bool lora_bias, JsonBool(json, "lora_bias", false));
  RETURN_IF_ERROR(RefuseIf(lora_bias, "lora_bias", "fovea's LoRA has no biases"));
  ASSIGN_OR_RETURN(const std::string bias, JsonString(json, "bias", "none"));
  RETURN_IF_ERROR(
      RefuseIf(bias != "none", "bias", StrCat("'", Printable(bias), "'; fovea reads 'none'")));
  if (const Json* modules = JsonFind(json, "modules_to_save");
      modules != nullptr && !modules->empty()) {
    const Json& first = modules->is_array() ? modules->front() : *modules;
    return absl::UnimplementedError(StrCat(
        "key modules_to_save: ", first.is_string() ? Printable(first.get<std::string>()) : "?",
        " is replaced as a whole; fovea reads low-rank updates only"));
  }
  RETURN_IF_ERROR(CheckOtherSettings(json));
  RETURN_IF_ERROR(CheckInitialWeights(json));
  return config;
}

std::vector<float> ToFloats(const StoredTensor& tensor) {
  int64_t n_values = 1;
  for (const int64_t size : tensor.shape) n_values *= size;
  std::vector<float> values(n_values);
  compute::DequantizeRow(tensor.dtype, tensor.data, n_values, values.data());
  return values;
}

bool AllFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// `name` without `prefix` and `suffix`, if it has both.
std::optional<std::string_view> Between(std::string_view prefix, std::string_view name,
                                        std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size() || !name.starts_with(prefix) ||
      !name.ends_with(suffix)) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  name.remove_suffix(suffix.size());
  return name;
}

class PeftAdapter : public Adapter {
 public:
  static absl::StatusOr<std::unique_ptr<Adapter>> Load(const std::filesystem::path& folder,
                                                       const ModelConfig& config) {
    auto adapter = std::make_unique<PeftAdapter>();
    const std::filesystem::path config_path = folder / "adapter_config.json";
    std::error_code error;
    if (!std::filesystem::exists(config_path, error) &&
        std::filesystem::exists(folder / "adapter" / "adapter_config.json", error)) {
      return absl::NotFoundError(
          StrCat(folder, ": the folder of a training run, whose adapter is ", folder / "adapter"));
    }
    ASSIGN_OR_RETURN(const Json json, ReadJsonObject(config_path));
    const absl::StatusOr<LoraConfig> lora_config = ParseLoraConfig(json);
    if (!lora_config.ok()) return Annotate(lora_config.status(), config_path.native());

    absl::StatusOr<FotConfig> fot = ReadFotConfig(folder / "fot_config.json", config);
    if (absl::IsNotFound(fot.status())) fot = FotConfig();
    RETURN_IF_ERROR(fot.status());
    adapter->memory_config_ = std::move(fot->memory);

    ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(folder / "adapter_model.safetensors"));
    absl::Status status = adapter->ReadTensors(*file, *lora_config, config);
    if (status.ok()) status = adapter->CheckGains(fot->memory_key_gain);
    if (!status.ok()) return Annotate(status, file->path().native());
    adapter->ComputeFingerprint();
    return adapter;
  }

  const LoraTensors* Find(std::string_view module) const override {
    const auto it = loras_.find(module);
    return it == loras_.end() ? nullptr : &it->second;
  }

  std::vector<float> MemoryKeyGain(int layer) const override {
    const auto it = gains_.find(layer);
    return it == gains_.end() ? std::vector<float>() : it->second;
  }

  const MemoryConfig& memory_config() const override { return memory_config_; }
  Hash128 Fingerprint() const override { return fingerprint_; }

 private:
  absl::Status ReadTensors(const SafetensorsFile& file, const LoraConfig& lora_config,
                           const ModelConfig& config) {
    std::map<std::string, std::vector<int64_t>, std::less<>> weight_shapes;
    for (TensorLayout& layout : ModelTensors(config)) {
      // LoRA is for linear layers: matrices, but for the embedding table.
      if (layout.shape.size() != 2 || layout.name == "model.embed_tokens.weight") continue;
      weight_shapes.emplace(layout.name.substr(0, layout.name.rfind('.')), std::move(layout.shape));
    }
    std::map<std::string_view, const StoredTensor*> b_tensors;
    for (const StoredTensor& tensor : file.tensors()) {
      if (const auto module = Between("base_model.model.", tensor.name, ".lora_B.weight")) {
        b_tensors.emplace(*module, &tensor);
      }
    }
    for (const StoredTensor& tensor : file.tensors()) {
      if (Between("base_model.model.", tensor.name, ".lora_B.weight").has_value()) continue;
      if (const auto layer = Between("fot.layers.", tensor.name, ".memory_key_gain")) {
        RETURN_IF_ERROR(ReadGain(*layer, tensor, config.n_kv_heads));
        continue;
      }
      const auto module = Between("base_model.model.", tensor.name, ".lora_A.weight");
      if (!module.has_value()) {
        return absl::UnimplementedError(
            StrCat("tensor ", Printable(tensor.name),
                   " is neither LoRA of a linear layer nor a gain of memory keys"));
      }
      const auto weight = weight_shapes.find(*module);
      if (weight == weight_shapes.end()) {
        return absl::InvalidArgumentError(StrCat("tensor ", Printable(tensor.name),
                                                 ": the model has no linear layer ",
                                                 Printable(*module)));
      }
      const auto b_tensor = b_tensors.find(*module);
      if (b_tensor == b_tensors.end()) {
        return absl::InvalidArgumentError(
            StrCat("tensor base_model.model.", *module, ".lora_B.weight is missing"));
      }
      RETURN_IF_ERROR(ReadLora(*module, tensor, *b_tensor->second, weight->second, lora_config));
      b_tensors.erase(b_tensor);
    }
    if (!b_tensors.empty()) {
      return absl::InvalidArgumentError(
          StrCat("tensor ", Printable(b_tensors.begin()->second->name), " has no lora_A"));
    }
    if (loras_.empty() && gains_.empty()) {
      return absl::InvalidArgumentError("the adapter is empty");
    }
    return absl::OkStatus();
  }

  absl::Status ReadLora(std::string_view module, const StoredTensor& a, const StoredTensor& b,
                        const std::vector<int64_t>& weight_shape, const LoraConfig& config) {
    LoraTensors lora;
    lora.out_features = weight_shape[0];
    lora.in_features = weight_shape[1];
    const double rank = config.rank_pattern.ValueOr(module, static_cast<double>(config.rank));
    // More than the smaller side would be no low-rank update; this also bounds what is allocated.
    if (!(rank >= 1 && rank <= 65536 && rank == std::floor(rank))) {
      return absl::InvalidArgumentError(StrCat(module, ": rank ", rank, ", want 1 to 65536"));
    }
    lora.rank = static_cast<int64_t>(rank);
    const std::vector<int64_t> a_shape = {lora.rank, lora.in_features};
    const std::vector<int64_t> b_shape = {lora.out_features, lora.rank};
    RETURN_IF_ERROR(CheckShape(a.name, a.shape, a_shape));
    RETURN_IF_ERROR(CheckShape(b.name, b.shape, b_shape));
    const double alpha = config.alpha_pattern.ValueOr(module, config.alpha);
    lora.scale = static_cast<float>(alpha / (config.rank_stabilised ? std::sqrt(rank) : rank));
    lora.a = ToFloats(a);
    lora.b = ToFloats(b);
    if (!AllFinite(lora.a) || !AllFinite(lora.b) || !std::isfinite(lora.scale)) {
      return absl::InvalidArgumentError(
          StrCat(module, ": the adapter has values that are not finite"));
    }
    loras_.emplace(module, std::move(lora));
    return absl::OkStatus();
  }

  absl::Status ReadGain(std::string_view layer_text, const StoredTensor& tensor,
                        int64_t n_kv_heads) {
    const auto& mem_layers = memory_config_.mem_layers;
    const auto layer = std::find_if(mem_layers.begin(), mem_layers.end(),
                                    [&](int number) { return StrCat(number) == layer_text; });
    if (layer == mem_layers.end()) {
      return absl::InvalidArgumentError(StrCat("tensor ", Printable(tensor.name),
                                               ": fot_config.json names no such memory layer"));
    }
    const std::vector<int64_t> want = {n_kv_heads};
    RETURN_IF_ERROR(CheckShape(tensor.name, tensor.shape, want));
    std::vector<float> gain = ToFloats(tensor);
    if (!AllFinite(gain)) {
      return absl::InvalidArgumentError(
          StrCat("tensor ", tensor.name, " has values that are not finite"));
    }
    gains_.emplace(*layer, std::move(gain));
    return absl::OkStatus();
  }

  absl::Status CheckGains(bool announced) const {
    if (!announced && !gains_.empty()) {
      return absl::InvalidArgumentError(
          "it has gains of memory keys, fot_config.json says memory_key_gain: false");
    }
    if (!announced) return absl::OkStatus();
    for (const int layer : memory_config_.mem_layers) {
      if (!gains_.contains(layer)) {
        return absl::InvalidArgumentError(
            StrCat("tensor fot.layers.", layer, ".memory_key_gain is missing"));
      }
    }
    return absl::OkStatus();
  }

  void ComputeFingerprint() {
    FieldHasher hasher;
    for (const auto& [module, lora] : loras_) {
      hasher.Add(module);
      hasher.Add(lora.rank);
      hasher.Add(lora.scale);
      hasher.Add(AsBytes(std::span<const float>(lora.a)));
      hasher.Add(AsBytes(std::span<const float>(lora.b)));
    }
    for (const auto& [layer, gain] : gains_) {
      hasher.Add(int64_t{layer});
      hasher.Add(gain);
    }
    for (const int layer : memory_config_.mem_layers) hasher.Add(int64_t{layer});
    hasher.Add(int64_t{memory_config_.mem_positionals});
    hasher.Add(memory_config_.encoding);
    fingerprint_ = hasher.Finish();
  }

  std::map<std::string, LoraTensors, std::less<>> loras_;  // by module
  std::map<int, std::vector<float>> gains_;                // by layer
  MemoryConfig memory_config_;
  Hash128 fingerprint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Load(const std::filesystem::path& folder,
                                                       const ModelConfig& config) {
  absl::StatusOr<std::unique_ptr<Adapter>> adapter = PeftAdapter::Load(folder, config);
  switch (adapter.status().code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kResourceExhausted:
      return adapter;
    default:
      return absl::Status(adapter.status().code(),
                          ToAbsl(StrCat(adapter.status().message(),
                                        "; take an adapter that was made for this model "
                                        "(--adapter DIR), or none (--adapter none)")));
  }
}

}  // namespace fovea::model
