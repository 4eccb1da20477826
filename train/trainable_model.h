// A LLaMA-family model with memory layers as LibTorch differentiates it: the same function as
// model/transformer.h, over whole batches, with low-rank or full updates of its matrices and gains
// of its memory keys as parameters.
//
//   ASSIGN_OR_RETURN(auto model, TrainableModel::Load(*checkpoint, nullptr, options));
//   const Weights weights = model->Compose();              // of this step
//   ContextEntries contexts = model->Encode(weights, ids);  // [n_contexts, n_tokens]
//   torch::Tensor hidden = model->Forward(weights, queries, &seen, nullptr);
//
// Errors of LibTorch (out of memory, say) are exceptions of its own, c10::Error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"
#include "train/crossbatch.h"
#include "train/torch.h"

namespace fovea::train {

struct TrainableOptions {
  enum class Update {
    kNone,  // the matrices stay as they are; the key gains may be trained
    kLora,  // W + (alpha / rank)·B·A (Hu et al. 2021), A normal with variance 1 / in_features, B 0
    kFull,  // the matrices of all layers; embeddings and norms stay
  };
  Update update = Update::kLora;
  int64_t lora_rank = 16;
  double lora_alpha = 32.0;
  std::vector<int> mem_layers;  // counted from 0, ascending; at least one
  bool mem_positionals = true;  // false: memory layers rotate nothing, local keys included
  bool trains_key_gain = true;
  torch::Device device = torch::kCPU;
  // Of weights and activations; parameters, norms and losses are float32.
  torch::Dtype type = torch::kFloat32;
  uint64_t seed = 0;
};

// Keys (before RoPE, times the key gain) and values at the memory layers: [n_mem_layers] of
// [n_contexts, n_kv_heads, n_tokens, head_dim].
struct ContextEntries {
  std::vector<torch::Tensor> keys;
  std::vector<torch::Tensor> values;
};

// What entries of a batch see: contexts of `entries`, by entry. Where contexts are entries of the
// batch itself (LongLLaMA's form), `entries` is null.
struct SeenMemory {
  const ContextEntries* entries = nullptr;
  const SeenContexts* seen = nullptr;
};

// Called in each memory layer with the queries [n_entries, n_heads, n_tokens, head_dim] (with their
// local rotation), the contexts' keys [n_contexts, n_kv_heads, n_context_tokens, head_dim] and
// which contexts each entry sees.
using MassProbe = std::function<void(size_t memory_layer, const torch::Tensor& queries,
                                     const torch::Tensor& context_keys, const SeenContexts& seen)>;

struct TrainableParameter {
  std::string name;  // as the adapter's file has it, or the checkpoint's tensor
  torch::Tensor value;
  bool is_key_gain = false;  // the logarithm of the gains, [n_kv_heads]
};

class TrainableModel {
 public:
  // The weights of one step, composed of what is frozen and what is trained.
  struct LayerWeights {  // [out_features, in_features]; what reads the same is one matrix
    torch::Tensor qkv, o, gate_up, down;
  };
  using Weights = std::vector<LayerWeights>;

  // `start` (may be null): the adapter that training goes on from; its ranks take the place of the
  // option's. InvalidArgument for options that do not fit the model.
  static absl::StatusOr<std::unique_ptr<TrainableModel>> Load(const model::Checkpoint& checkpoint,
                                                              const model::Adapter* start,
                                                              const TrainableOptions& options);

  Weights Compose() const;
  // Contexts, each encoded with itself alone, layers up to the last memory layer. ids: int64
  // [n_contexts, n_tokens].
  ContextEntries Encode(const Weights& weights, const torch::Tensor& ids) const;
  // Hidden states after the last norm, [n_entries, n_tokens, hidden_size]; ids: int64
  // [n_entries, n_tokens]. `memory` (null: none): one softmax over what an entry sees of it, all of
  // it, and its causal local context. `probe` may be null.
  torch::Tensor Forward(const Weights& weights, const torch::Tensor& ids, const SeenMemory* memory,
                        const MassProbe* probe) const;
  // Of hidden states [n, hidden_size]: [n, vocab_size].
  torch::Tensor Logits(const torch::Tensor& hidden) const;

  const std::vector<TrainableParameter>& parameters() const { return parameters_; }
  const model::ModelConfig& config() const { return config_; }
  const TrainableOptions& options() const { return options_; }

 private:
  struct Module {
    torch::Tensor weight;  // frozen, of options_.type
    torch::Tensor a, b;    // of a low-rank update; undefined: none
    torch::Tensor full;    // float32, in its place; undefined: none
    double scale = 0.0;
  };
  struct Layer {
    torch::Tensor attention_norm, mlp_norm;
    Module q, k, v, o, gate, up, down;
    torch::Tensor qkv_bias;  // may be undefined
  };
  friend class TrainableLoader;

  torch::Tensor Composed(const Module& module) const;
  int64_t MemoryIndex(int64_t layer) const;
  torch::Tensor KeyGain(size_t memory_layer) const;
  // The last norm of the state after `n_layers` layers; with `entries`, what the memory layers put
  // there instead.
  torch::Tensor RunLayers(const Weights& weights, const torch::Tensor& ids, int64_t n_layers,
                          const SeenMemory* memory, const MassProbe* probe,
                          ContextEntries* entries) const;

  model::ModelConfig config_;
  TrainableOptions options_;
  std::vector<Layer> layers_;
  torch::Tensor embedding_, final_norm_, lm_head_;
  torch::Tensor cos_, sin_;           // float32 [max positions, head_dim / 2]
  std::vector<torch::Tensor> gains_;  // [n_mem_layers] of [n_kv_heads], logarithms; may be empty
  std::vector<TrainableParameter> parameters_;
};

}  // namespace fovea::train
