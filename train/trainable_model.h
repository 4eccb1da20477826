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
#include <utility>
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
    kFull,     // the matrices of all layers; embeddings and norms stay
    kScratch,  // all from random values, embeddings and QK-norms too; other norms' gains stay 1:
               // the matrices behind them have theirs
  };
  Update update = Update::kLora;
  int64_t lora_rank = 16;
  double lora_alpha = 32.0;
  std::vector<int> mem_layers;  // counted from 0, ascending; at least one
  bool mem_positionals = true;  // false: memory layers rotate nothing, local keys included
  bool trains_key_gain = true;
  // Of kScratch with QK-norm: what a memory layer's cosines of queries and keys are multiplied with
  // at first. Its gains learn it further.
  double first_temperature = 16.0;
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
  bool is_norm = false;
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

  // Of random values (update kScratch), [out_features, in_features] matrices normal with a standard
  // deviation of 0.02, those that end a half of a layer divided by √(2·n_layers) (Radford et al.
  // 2019). The same errors.
  static absl::StatusOr<std::unique_ptr<TrainableModel>> Create(const model::ModelConfig& config,
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
  // Every tensor of a checkpoint of this model as it is now, by the checkpoint's names; matrices of
  // options().type, norms float32. Without key gains, which are an adapter's.
  std::vector<std::pair<std::string, torch::Tensor>> CheckpointTensors() const;
  const model::ModelConfig& config() const { return config_; }
  const TrainableOptions& options() const { return options_; }
  bool is_trained_whole() const {
    using Update = TrainableOptions::Update;
    return options_.update == Update::kFull || options_.update == Update::kScratch;
  }

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
    torch::Tensor qkv_bias;        // may be undefined
    torch::Tensor q_norm, k_norm;  // float32 [head_dim]; undefined: no QK-norm
  };
  friend class TrainableLoader;

  torch::Tensor Composed(const Module& module) const;
  int64_t MemoryIndex(int64_t layer) const;
  torch::Tensor KeyGain(size_t memory_layer) const;
  // QK-norm of queries and keys; values as they are. [n, n_tokens, n_heads + 2·n_kv_heads,
  // head_dim]
  torch::Tensor NormalizeHeads(const torch::Tensor& qkv, const Layer& layer) const;
  // The last norm of the state after `n_layers` layers; with `entries`, what the memory layers put
  // there instead.
  torch::Tensor RunLayers(const Weights& weights, const torch::Tensor& ids, int64_t n_layers,
                          const SeenMemory* memory, const MassProbe* probe,
                          ContextEntries* entries) const;

  model::ModelConfig config_;
  TrainableOptions options_;
  std::vector<Layer> layers_;
  // [vocab_size, hidden_size] of options_.type, or float32 where they are trained.
  torch::Tensor embedding_, lm_head_;
  torch::Tensor final_norm_;
  torch::Tensor cos_, sin_;           // float32 [max positions, head_dim / 2]
  std::vector<torch::Tensor> gains_;  // [n_mem_layers] of [n_kv_heads], logarithms; may be empty
  std::vector<TrainableParameter> parameters_;
};

}  // namespace fovea::train
