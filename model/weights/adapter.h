// A LoRA adapter (Hu et al. 2021) in PEFT's format, with fovea's fot_config.json and gains of
// memory keys beside it. A folder without fot_config.json is a plain LoRA and names no memory
// layers.
//
//   ASSIGN_OR_RETURN(auto adapter, Adapter::Load(folder, checkpoint->config()));
//   const LoraTensors* lora = adapter->Find("model.layers.0.self_attn.q_proj");
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "model/config.h"

namespace fovea::model {

// Updates a weight W [out_features, in_features] to W + scale·B·A.
struct LoraTensors {
  std::vector<float> a;  // [rank, in_features]
  std::vector<float> b;  // [out_features, rank]
  int64_t rank = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  float scale = 0.0f;  // lora_alpha / rank (rank-stabilised: / sqrt(rank))
};

// Immutable and thread-safe.
class Adapter {
 public:
  // A folder with adapter_config.json, adapter_model.safetensors and (optional) fot_config.json.
  // Checks every shape against `config`, and that every tensor has a place. NotFound;
  // InvalidArgument names what does not fit; Unimplemented names a feature of PEFT that fovea
  // lacks.
  static absl::StatusOr<std::unique_ptr<Adapter>> Load(const std::filesystem::path& folder,
                                                       const ModelConfig& config);
  virtual ~Adapter() = default;

  // By the name of the weight it updates, "model.layers.0.self_attn.q_proj" or (untied) "lm_head";
  // null when it has none.
  virtual const LoraTensors* Find(std::string_view module) const = 0;
  // Gain of the memory keys of transformer layer `layer` [n_kv_heads]; empty = 1.
  virtual std::vector<float> MemoryKeyGain(int layer) const = 0;
  // mem_layers is empty for a plain LoRA.
  virtual const MemoryConfig& memory_config() const = 0;
  // XXH3-128 over all tensors and what the configuration makes of them.
  virtual Hash128 Fingerprint() const = 0;
};

}  // namespace fovea::model
