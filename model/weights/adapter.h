// A LoRA adapter in PEFT's format with fovea's fot_config.json and memory-key gains beside it.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "model/config.h"

namespace fovea::model {

struct LoraTensors {
  std::vector<float> a;  // [rank, in_features]
  std::vector<float> b;  // [out_features, rank]
  int64_t rank = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  float scale = 0.0f;    // lora_alpha / rank (rank-stabilised: / sqrt(rank))
};

// Immutable and thread-safe.
class Adapter {
 public:
  // A folder with adapter_config.json, adapter_model.safetensors and (optional) fot_config.json.
  // Checks every shape against `config`. InvalidArgument names what does not fit.
  static absl::StatusOr<std::unique_ptr<Adapter>> Load(const std::filesystem::path& folder,
                                                       const ModelConfig& config);
  virtual ~Adapter() = default;

  // By the name of the weight it updates, "model.layers.0.self_attn.q_proj"; null when it has none.
  virtual const LoraTensors* Find(std::string_view module) const = 0;
  // Gain of the memory keys of transformer layer `layer` [n_kv_heads]; empty = 1.
  virtual std::vector<float> MemoryKeyGain(int layer) const = 0;
  virtual const MemoryConfig& memory_config() const = 0;
  virtual Hash128 Fingerprint() const = 0;
};

}  // namespace fovea::model
